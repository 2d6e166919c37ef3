"""Taking images in, asked by a client that speaks as CRIU does."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from criu_client import Dumping

from criu_train.archive import space
from criu_train.archive.arena import Arena
from criu_train.archive.capture import Capture
from criu_train.archive.captured import PAGE, Captured, Extent
from criu_train.archive.space import Space
from criu_train.criu.stream import CAPTURE_SOCKET

MIB = 1 << 20
PLENTY = 1 << 40


def roomy(size: int) -> Arena:
    arena = Arena(limit=PLENTY, spare=lambda: PLENTY)
    arena.grow(size)
    return arena


@contextmanager
def dump(place: Path, arena: Arena, spill: Path | None = None) -> Iterator[tuple[Capture, Dumping]]:
    place.mkdir(exist_ok=True)
    capture = Capture(place, arena, spill or place / "spill")
    try:
        with Dumping(place) as criu:
            yield capture, criu
    finally:
        capture.close()
        for left in place.iterdir():
            left.unlink()  # the socket


def content(captured: Captured) -> dict[str, bytes]:
    return {image.name: b"".join(map(bytes, map(captured.memory.view, image.extents))) for image in captured.large}


def descriptors() -> int:
    gc.collect()  # what an earlier test has left in circles would go at any moment
    return len(os.listdir("/proc/self/fd"))


def test_large_images_lie_in_memory_and_small_ones_come_along(tmp_path: Path) -> None:
    pages = {f"pages-{number}.img": os.urandom(3 * MIB + number * PAGE) for number in (1, 2)}
    with dump(tmp_path / "d", roomy(64 * MIB)) as (capture, criu):
        criu.image("inventory.img", b"small")
        for name, data in pages.items():
            criu.image(name, data)
        criu.image("pagemap-1.img", bytes(300_000))
        captured = capture.finish()
        assert content(captured) == pages
    assert captured.small == {"inventory.img": b"small", "pagemap-1.img": bytes(300_000)}
    assert captured.spilled == 0


def test_images_may_be_open_at_the_same_time(tmp_path: Path) -> None:
    with dump(tmp_path / "d", roomy(64 * MIB)) as (capture, criu):
        pipes = {name: criu.open(name) for name in ("core-1.img", "mm-1.img", "pages-1.img")}
        for part in (b"a", b"b"):
            for pipe in pipes.values():
                os.write(pipe, part * 5000)
        for pipe in pipes.values():
            os.close(pipe)
        captured = capture.finish()
        expected = b"a" * 5000 + b"b" * 5000
        assert captured.small == {"core-1.img": expected, "mm-1.img": expected}
        assert content(captured) == {"pages-1.img": expected}


@pytest.mark.parametrize("name", ["pages-1.img", "mm-1.img"])
def test_nothing_is_finished_before_the_last_pipe_ends(tmp_path: Path, name: str) -> None:
    with dump(tmp_path / "d", roomy(64 * MIB)) as (capture, criu):
        pipe = criu.open(name)
        os.write(pipe, b"a" * PAGE)
        finishing = threading.Thread(target=capture.finish)
        finishing.start()
        finishing.join(0.2)
        assert finishing.is_alive()
        os.close(pipe)
        finishing.join(10)
        assert not finishing.is_alive()


def test_every_image_starts_on_a_page_and_zeros_follow_it_to_the_end_of_its_last(tmp_path: Path) -> None:
    arena = roomy(64 * MIB)
    with dump(tmp_path / "d", arena) as (capture, criu):
        criu.image("pages-1.img", b"x" * MIB)  # what the next one finds there
        capture.finish()
    ghosts = {"ghost-file-1.img": b"g" * 5000, "ghost-file-2.img": b"", "ghost-file-3.img": b"h"}
    with dump(tmp_path / "d", arena) as (capture, criu):
        for name, data in ghosts.items():
            criu.image(name, data)
        captured = capture.finish()
        assert content(captured) == ghosts
        extents = [extent for image in captured.large for extent in image.extents]
        assert [extent.offset % PAGE for extent in extents] == [0, 0]
        whole = [bytes(captured.memory.view(Extent(e.offset, -(-e.length // PAGE) * PAGE))) for e in extents]
        assert whole == [b"g" * 5000 + bytes(2 * PAGE - 5000), b"h" + bytes(PAGE - 1)]


def test_two_captures_one_after_the_other_use_the_same_memory(tmp_path: Path) -> None:
    arena = roomy(64 * MIB)
    for _ in range(2):
        data = os.urandom(40 * MIB)
        with dump(tmp_path / "d", arena) as (capture, criu):
            criu.image("pages-1.img", data)
            captured = capture.finish()
            assert content(captured) == {"pages-1.img": data}
        assert captured.spilled == 0
        assert arena.size == 64 * MIB


def test_an_image_runs_on_in_memory_that_was_added_later(tmp_path: Path) -> None:
    arena = roomy(64 * MIB)
    arena.grow(120 * MIB)
    data = os.urandom(100 * MIB)
    with dump(tmp_path / "d", arena) as (capture, criu):
        criu.image("pages-1.img", data)
        captured = capture.finish()
        assert [extent.length for extent in captured.large[0].extents] == [64 * MIB, 36 * MIB]
        assert content(captured)["pages-1.img"] == data


def test_what_memory_can_not_hold_goes_to_the_disk(tmp_path: Path) -> None:
    arena = Arena(limit=4 * MIB, spare=lambda: PLENTY)
    arena.grow(100 * MIB)
    assert arena.size == 4 * MIB
    images = {"pages-1.img": os.urandom(6 * MIB), "ghost-file-1.img": b"g" * 5000, "pages-2.img": os.urandom(2 * MIB)}
    with dump(tmp_path / "d", arena, tmp_path / "spill") as (capture, criu):
        for name, data in images.items():
            criu.image(name, data)
        captured = capture.finish()
        assert content(captured) == images
        assert captured.spilled == 4 * MIB + 2 * PAGE
        (extent,) = captured.large[1].extents
        assert bytes(captured.memory.view(Extent(extent.offset, 2 * PAGE))) == b"g" * 5000 + bytes(2 * PAGE - 5000)
        assert not (tmp_path / "spill").exists()  # whatever becomes of us, it does not stay


def test_a_capture_without_any_memory_works_too(tmp_path: Path) -> None:
    with dump(tmp_path / "d", Arena(limit=0)) as (capture, criu):
        criu.image("pages-1.img", b"p" * MIB)
        assert content(capture.finish()) == {"pages-1.img": b"p" * MIB}


def test_a_disk_that_takes_no_more_breaks_the_pipe_and_is_told(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with dump(tmp_path / "d", Arena(limit=0)) as (capture, criu):
        pipe = criu.open("pages-1.img")
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, limits[1]))
        try:
            with pytest.raises(BrokenPipeError):
                while True:
                    os.write(pipe, bytes(PAGE))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        os.close(pipe)
        with pytest.raises(OSError) as caught:
            capture.finish()
    assert caught.value.errno == errno.EFBIG


def test_the_disk_is_never_filled_to_the_last_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = os.statvfs(tmp_path)
    nearly = info.f_bavail * info.f_frsize + (1 << 30)
    monkeypatch.setattr(space, "_RESERVE", nearly)
    with dump(tmp_path / "d", Arena(limit=0)) as (capture, criu):
        with contextlib.suppress(BrokenPipeError):
            criu.image("pages-1.img", bytes(MIB))
        with pytest.raises(OSError) as caught:
            capture.finish()
    assert caught.value.errno == errno.ENOSPC


def test_giving_up_breaks_pipes_that_somebody_waits_in(tmp_path: Path) -> None:
    with dump(tmp_path / "d", roomy(64 * MIB)) as (capture, criu):
        pipes = [criu.open(name) for name in ("pages-1.img", "pages-2.img", "mm-1.img")]
        time.sleep(0.1)
        capture.abort()
        for pipe in pipes:
            with pytest.raises(BrokenPipeError):
                while True:
                    os.write(pipe, bytes(PAGE))
            os.close(pipe)
        with pytest.raises(OSError, match="given up"):
            capture.finish()


def test_a_criu_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    arena = roomy(64 * MIB)
    before = descriptors(), threading.active_count()
    with dump(tmp_path / "d", arena) as (capture, criu):
        pipes = [criu.open(name) for name in ("pages-1.img", "mm-1.img")]
        criu.request("half")
        for pipe in pipes:
            os.close(pipe)
    del capture
    assert (descriptors(), threading.active_count()) == before
    with dump(tmp_path / "d", arena) as (capture, criu):
        criu.image("mm-1.img", b"the next one")
        assert capture.finish().small == {"mm-1.img": b"the next one"}
    del capture
    assert (descriptors(), threading.active_count()) == before


def test_nonsense_instead_of_a_request_is_told(tmp_path: Path) -> None:
    with dump(tmp_path / "d", roomy(64 * MIB)) as (capture, criu):
        criu.request("../../etc/passwd")
        with pytest.raises(OSError, match="not a request"):
            capture.finish()


def test_a_reader_that_runs_out_of_memory_never_makes_a_whole_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, done = Space.place, itertools.count()

    def short(self: Space, piece: Extent) -> memoryview | None:
        if next(done) == 1:
            raise MemoryError
        return place(self, piece)

    monkeypatch.setattr(Space, "place", short)
    with dump(tmp_path / "d", roomy(64 * MIB)) as (capture, criu):
        with contextlib.suppress(BrokenPipeError):
            criu.image("pages-1.img", bytes(8 * MIB))
        with pytest.raises(OSError, match="MemoryError"):
            capture.finish()


def test_a_capture_whose_pipes_or_threads_can_not_be_had_fails_at_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(what: Callable[..., Any], error: Callable[[], Exception], allowed: int) -> Callable[..., Any]:
        calls = itertools.count()

        def call(*given: Any) -> Any:
            if next(calls) >= allowed:
                raise error()
            return what(*given)

        return call

    gc.collect()
    before = descriptors(), threading.active_count()
    for number in range(4):
        for part, name, error in (
            (os, "pipe", lambda: OSError(errno.EMFILE, "too many")),
            (threading.Thread, "start", lambda: RuntimeError("no thread")),
        ):
            if name == "pipe" and number == 3:
                continue
            with monkeypatch.context() as patch:
                patch.setattr(part, name, lacking(getattr(part, name), error, number))
                with pytest.raises(OSError, match=r"too many|no thread"):
                    Capture(tmp_path, roomy(0), tmp_path / "spill")
            (tmp_path / CAPTURE_SOCKET).unlink()
            gc.collect()
            assert (descriptors(), threading.active_count()) == before


def test_memory_never_grows_over_what_is_free() -> None:
    arena = Arena(limit=None, spare=lambda: 200 * MIB)
    arena.grow(PLENTY)
    assert arena.size == 100 * MIB


def test_memory_stops_growing_when_it_gets_short_meanwhile() -> None:
    free = iter([2000 * MIB, 2000 * MIB, 100 * MIB])
    arena = Arena(limit=None, spare=lambda: next(free))
    arena.grow(PLENTY)
    assert arena.size == 256 * MIB


def test_half_of_what_is_free_is_half_however_often_memory_grows() -> None:
    free = [1000 * MIB]
    arena = Arena(limit=None, spare=lambda: free[0] - arena.size)
    for number in range(1, 6):
        arena.grow(number * 200 * MIB)
    assert arena.size == 500 * MIB
