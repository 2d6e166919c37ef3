"""Handing images out, asked by a client that speaks as CRIU does."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from criu_client import Restoring

from criu_train.archive.damage import DamagedError
from criu_train.archive.serve import Serving
from criu_train.criu import stream

MIB = 1 << 20


class Pages:
    """Large images; ``damaged`` are good for a megabyte."""

    def __init__(self, images: Mapping[str, bytes], damaged: str = "") -> None:
        self._images = images
        self._damaged = damaged
        self.names = {name: len(data) for name, data in images.items()}

    def stream(self, name: str, write: Callable[[memoryview], None]) -> None:
        data = memoryview(self._images[name])
        while data:
            if name == self._damaged and len(data) <= self.names[name] - MIB:
                raise DamagedError(Path("pack"), "is rotten")
            write(data[:MIB])
            data = data[MIB:]


@contextmanager
def serving(place: Path, pages: Pages, problems: list[str]) -> Iterator[tuple[Serving, Restoring]]:
    (place / "images").mkdir()
    (place / "images" / "inventory.img").write_bytes(b"small")
    serving = Serving(place / "images", pages, place, problems.append)
    try:
        with Restoring(place) as criu:
            yield serving, criu
    finally:
        serving.close()


def read_available(pipe: int) -> bytes:
    os.set_blocking(pipe, False)
    data = b""
    try:
        while piece := os.read(pipe, MIB):
            data += piece
    except BlockingIOError:
        return data
    raise AssertionError("the pipe ended")


def test_images_are_handed_out_in_any_order_and_more_than_once(tmp_path: Path) -> None:
    images = {"pages-1.img": os.urandom(5 * MIB + 100), "ghost-file-1.img": b""}
    problems: list[str] = []
    with serving(tmp_path, Pages(images), problems) as (served, criu):
        for name in ("ghost-file-1.img", "pages-1.img", "pages-1.img"):
            assert criu.image(name) == images[name]
        assert criu.image("inventory.img") == b"small"
        assert criu.image("none.img") is None
        assert served.whole
    assert problems == []


def test_several_readers_are_served_side_by_side(tmp_path: Path) -> None:
    images = {f"pages-{number}.img": os.urandom(4 * MIB) for number in range(4)}
    with serving(tmp_path, Pages(images), []) as (_, criu):
        pipes = {name: criu.open(name) for name in images}
        for name, pipe in reversed(pipes.items()):  # the first to ask reads last
            assert pipe is not None
            with os.fdopen(pipe, "rb") as file:
                assert file.read() == images[name]


def test_a_reader_that_has_enough_is_no_problem(tmp_path: Path) -> None:
    problems: list[str] = []
    with serving(tmp_path, Pages({"pages-1.img": bytes(8 * MIB)}), problems) as (served, criu):
        pipe = criu.open("pages-1.img")
        assert pipe is not None
        os.read(pipe, 100)
        os.close(pipe)
        assert criu.image("inventory.img") == b"small"
        assert served.whole
    assert problems == []


@pytest.mark.parametrize("name", ["inventory.img", "core-1.img"])
def test_a_criu_that_dies_before_it_has_read_its_answer_is_no_problem(tmp_path: Path, name: str) -> None:
    problems: list[str] = []
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "inventory.img").write_bytes(b"small")
    served = Serving(tmp_path / "images", Pages({}), tmp_path, problems.append)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as criu:
        criu.connect(str(tmp_path / stream.SERVE_SOCKET))
        body = bytes((0x0A, len(name))) + name.encode()
        criu.sendall(struct.pack("<I", len(body)) + body)
        assert select.select([criu], [], [], 10)[0]
    time.sleep(0.1)  # nothing is to happen
    served.close()
    assert problems == []


def test_after_damage_every_pipe_stays_open_and_silent_and_nothing_more_is_answered(tmp_path: Path) -> None:
    images = {"pages-1.img": os.urandom(8 * MIB), "ghost-file-1.img": os.urandom(8 * MIB)}
    problems: list[str] = []
    with serving(tmp_path, Pages(images, damaged="ghost-file-1.img"), problems) as (served, criu):
        bystander, damaged = criu.open("pages-1.img"), criu.open("ghost-file-1.img")
        assert bystander is not None and damaged is not None
        got = b""
        while not problems:
            got += read_available(damaged)
        got += read_available(damaged)
        assert got == images["ghost-file-1.img"][:MIB]
        seen = b""
        while more := read_available(bystander):  # at most what lay in the pipe and the piece under way
            seen += more
        assert len(seen) <= 4 * MIB
        criu.request("inventory.img")
        criu.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            criu.socket.recv(1)
        assert not served.whole
    assert problems == ["pack is rotten"]
    os.set_blocking(damaged, True)
    assert os.read(damaged, 1) == b""  # let go at the end
    os.close(damaged)
    os.close(bystander)


def test_an_image_that_can_not_be_read_is_a_problem_too(tmp_path: Path) -> None:
    problems: list[str] = []
    with serving(tmp_path, Pages({}), problems) as (served, criu):
        (tmp_path / "images" / "core-1.img").symlink_to("/proc/self/mem")
        pipe = criu.open("core-1.img")
        assert pipe is not None
        while not problems:
            assert read_available(pipe) == b""
        assert not served.whole
        os.close(pipe)


def test_closing_ends_threads_that_wait_for_a_reader(tmp_path: Path) -> None:
    before = threading.active_count()
    with serving(tmp_path, Pages({"pages-1.img": bytes(8 * MIB)}), []) as (_, criu):
        pipe = criu.open("pages-1.img")
    assert threading.active_count() == before
    assert pipe is not None
    os.close(pipe)


def test_closing_before_anybody_came_ends_at_once(tmp_path: Path) -> None:
    before = threading.active_count()
    Serving(tmp_path, Pages({}), tmp_path, pytest.fail).close()
    assert threading.active_count() == before


def test_an_image_that_was_lost_is_a_problem_and_not_an_image_that_never_was(tmp_path: Path) -> None:
    problems: list[str] = []
    told = threading.Event()
    (tmp_path / "images").mkdir()

    def note(problem: str) -> None:
        problems.append(problem)
        told.set()

    serving = Serving(tmp_path / "images", Pages({}), tmp_path, note, names={"core-1.img"})
    try:
        with Restoring(tmp_path) as criu:
            assert criu.open("mm-1.img") is None
            pipe = criu.open("core-1.img")
            assert pipe is not None
            assert told.wait(10)
            assert read_available(pipe) == b""
            assert "core-1.img" in problems[0]
    finally:
        serving.close()
    os.close(pipe)
