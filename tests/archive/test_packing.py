"""Every page is stored once, and any sequence of snapshots gives back what was captured, byte for byte."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from archive_samples import Steady, inodes, noise, pack_files, packed, pages, read_back
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criu_train.archive import known, packing
from criu_train.archive.captured import PAGE
from criu_train.archive.damage import DamagedError
from criu_train.archive.index import read_index
from criu_train.store.seal import PLAIN, Bytes, KeyedSeal, Seal

SHAPES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=12),  # (kind, repeated)
        st.integers(0, PAGE - 1),  # bytes after the last page
    ),
    max_size=4,
)


def images_of(shape: list[tuple[list[tuple[int, int]], int]]) -> dict[str, bytes]:
    images = {}
    for number, (runs, rest) in enumerate(shape):
        data = b"".join(pages(kind) * count for kind, count in runs)
        images[f"ghost-file-{number}.img" if rest else f"pages-{number}.img"] = data + noise(rest, 1)[:rest]
    return images


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=5),
    removed=st.lists(st.integers(0, 4), max_size=4),
    longest=st.sampled_from([PAGE, 3 * PAGE, 1 << 30]),
    levels=st.lists(st.sampled_from([3, 1, None]), min_size=5, max_size=5),
    hashed=st.lists(st.sampled_from([0, 3, 10, None]), min_size=5, max_size=5),
)
def test_any_images_stream_back_byte_for_byte_over_generations(
    tmp_path: Path,
    shapes: list[object],
    removed: list[int],
    longest: int,
    levels: list[int | None],
    hashed: list[int | None],
) -> None:
    top = tmp_path / "any"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    snapshots: dict[Path, dict[str, bytes]] = {}
    for number, shape in enumerate(shapes):
        images = images_of(shape)  # type: ignore[arg-type]
        snapshot = top / f"20260101T000000Z-{number:06d}"
        result = packed(
            snapshot,
            images,
            sorted(snapshots, reverse=True),
            pace=Steady(levels[number]),
            longest=longest,
            hashed=hashed[number],
        )
        sums = result.zero_pages + result.duplicate_pages + result.known_pages + result.new_pages
        assert (sums, result.raw_bytes) == (result.pages, sum(map(len, images.values())))
        snapshots[snapshot] = images
        if number < len(removed):
            gone = sorted(snapshots)[removed[number] % len(snapshots)]
            shutil.rmtree(gone)
            del snapshots[gone]
    for snapshot, images in snapshots.items():
        assert read_back(snapshot) == images


def test_a_page_is_stored_once_however_often_it_occurs(tmp_path: Path) -> None:
    result = packed(
        tmp_path / "1", {"pages-1.img": pages(1, 0, 2, 1, 0), "pages-2.img": pages(2, 1, 3), "pages-3.img": b""}
    )
    assert (result.zero_pages, result.new_pages, result.duplicate_pages, result.known_pages) == (2, 3, 3, 0)
    (entry,) = read_index(tmp_path / "1").packs
    assert entry.pages == 3


def test_what_did_not_change_is_linked_and_not_written_again(tmp_path: Path) -> None:
    first = {"pages-1.img": noise("a", 100)}
    second = {"pages-1.img": noise("a", 100)[:-PAGE] + noise("b", 1)}
    packed(tmp_path / "1", first)
    result = packed(tmp_path / "2", second, [tmp_path / "1"])
    assert (result.known_pages, result.new_pages, result.packs) == (99, 1, 2)
    assert result.added_bytes < 2 * PAGE
    assert inodes(pack_files(tmp_path / "1")) < inodes(pack_files(tmp_path / "2"))


def test_a_pack_of_which_less_than_a_quarter_is_used_is_left_behind(tmp_path: Path) -> None:
    packed(tmp_path / "1", {"pages-1.img": noise("a", 100)})
    quarter = packed(tmp_path / "2", {"pages-1.img": noise("a", 100)[: 25 * PAGE]}, [tmp_path / "1"])
    assert (quarter.known_pages, quarter.added_bytes) == (25, 0)
    less = packed(tmp_path / "3", {"pages-1.img": noise("a", 100)[: 24 * PAGE]}, [tmp_path / "2"])
    assert (less.known_pages, less.new_pages, less.packs) == (0, 24, 1)
    assert not inodes(pack_files(tmp_path / "3")) & inodes(pack_files(tmp_path / "2"))


def test_packs_stay_few_over_many_small_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MAX_PACKS", 5)
    data, earlier = b"", list[Path]()
    for number in range(12):
        data += noise(number, 10 - number % 3)
        result = packed(tmp_path / str(number), {"pages-1.img": data}, earlier)
        earlier = [tmp_path / str(number)]
        assert result.packs <= 5
        assert result.new_pages < 30  # the smallest are written again, not everything
    assert read_back(earlier[0]) == {"pages-1.img": data}


def test_large_captures_are_split_into_several_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_PACK_PAGES", 2000)
    images = {"pages-1.img": noise("a", 5000)}
    assert packed(tmp_path / "1", images).packs == 3
    assert read_back(tmp_path / "1") == images


def test_a_newest_snapshot_that_is_damaged_or_old_is_passed_over(tmp_path: Path) -> None:
    images = {"pages-1.img": noise("a", 10)}
    packed(tmp_path / "1", images)
    packed(tmp_path / "2", images)
    (tmp_path / "2" / "pages.index").write_bytes(b"?")
    (tmp_path / "3").mkdir()  # of version 1: nothing was packed
    result = packed(tmp_path / "4", images, [tmp_path / "3", tmp_path / "2", tmp_path / "1"])
    assert (result.known_pages, result.new_pages) == (10, 0)


@pytest.mark.parametrize("at", [0, PAGE * 9, -1, -60])
def test_rot_does_not_spread_to_the_next_snapshot(tmp_path: Path, at: int) -> None:
    images = {"pages-1.img": noise("a", 10)}
    packed(tmp_path / "1", images)
    (pack,) = pack_files(tmp_path / "1")
    data = bytearray(pack.read_bytes())
    data[at] ^= 1
    pack.write_bytes(data)
    result = packed(tmp_path / "2", images, [tmp_path / "1"])
    assert (result.known_pages, result.new_pages) == (0, 10)
    assert read_back(tmp_path / "2") == images


def test_every_frame_is_read_again_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_REREAD", 2 << 20)
    images = {"pages-1.img": noise("a", 5000)}  # 20 MiB, five frames
    packed(tmp_path / "20260101T000000Z-000000", images)
    (pack,) = pack_files(tmp_path / "20260101T000000Z-000000")
    data = bytearray(pack.read_bytes())
    data[3000 * PAGE] ^= 1
    pack.write_bytes(data)
    noticed = []
    for sequence in range(1, 12):
        twin = tmp_path / f"20260101T000000Z-{sequence:06d}"
        shutil.copytree(tmp_path / "20260101T000000Z-000000", twin, copy_function=os.link)
        noticed.append(packed(tmp_path / f"after-{sequence}", images, [twin]).new_pages == 5000)
    assert any(noticed)
    assert not all(noticed)  # or nothing would have been gained by taking turns


def test_no_large_images_make_an_empty_index(tmp_path: Path) -> None:
    result = packed(tmp_path / "1", {})
    assert (result.pages, result.packs, result.added_bytes) == (0, 0, 0)
    assert read_back(tmp_path / "1") == {}
    assert packed(tmp_path / "2", {"pages-1.img": pages(1)}, [tmp_path / "1"]).new_pages == 1


def test_nothing_but_zeros_needs_no_pack(tmp_path: Path) -> None:
    images = {"pages-1.img": bytes(3000 * PAGE), "ghost-file-1.img": bytes(17)}
    assert packed(tmp_path / "1", images).packs == 0
    assert read_back(tmp_path / "1") == images


def test_a_full_disk_fails_before_it_is_full(tmp_path: Path) -> None:
    with pytest.raises(OSError) as failed:
        packed(tmp_path / "1", {"pages-1.img": noise("a", 10)}, reserve=1 << 60)
    assert failed.value.errno == errno.ENOSPC
    assert pack_files(tmp_path / "1") == []


def test_a_pace_that_gives_up_leaves_no_pack_behind(tmp_path: Path) -> None:
    class GivesUp(Steady):
        def level(self, raw_left: int, done: float) -> int | None:
            if raw_left < 3000 * PAGE:
                raise InterruptedError
            return 3

    with pytest.raises(InterruptedError):
        packed(tmp_path / "1", {"pages-1.img": noise("a", 8000)}, pace=GivesUp())
    assert pack_files(tmp_path / "1") == []


def test_the_pace_is_asked_for_less_and_less_and_told_of_every_thread(tmp_path: Path) -> None:
    asked: list[int] = []
    threads = []

    class Watches(Steady):
        def level(self, raw_left: int, done: float) -> int | None:
            asked.append(raw_left)
            return None

        def in_thread(self) -> None:
            threads.append(1)

    result = packed(tmp_path / "1", {"pages-1.img": noise("a", 9000)}, pace=Watches())
    assert asked == sorted(asked, reverse=True)
    assert asked[0] == result.raw_bytes
    assert len(threads) == 3
    assert not result.compressed


def test_pages_that_there_was_no_time_to_hash_are_stored_and_never_found_again(tmp_path: Path) -> None:
    data = noise("a", 1500) + pages(0, 2) + noise("b", 1500) + pages(2, 0, 2)
    data += data[-PAGE:]
    images = {"pages-1.img": data}
    result = packed(tmp_path / "1", images, hashed=1024)
    assert (result.zero_pages, result.duplicate_pages, result.new_pages) == (2, 0, 3004)
    for number, hashed in (("2", None), ("3", 0), ("4", None)):
        again = packed(tmp_path / number, images, [tmp_path / str(int(number) - 1)], hashed=hashed)
        assert again.zero_pages == 2
        assert again.new_pages == {"2": 3001 - 1024, "3": 3004, "4": 3001}[number]
    for number in "1234":
        assert read_back(tmp_path / number) == images


class Alike(Seal):
    """Digests of which the first half tells nothing."""

    class Hasher:
        def __init__(self, data: Bytes) -> None:
            self._digest = blake3(data)

        def digest(self, length: int) -> bytes:
            return bytes([7] * 8) + self._digest.digest(length)[8:]

    def hasher(self, data: Bytes = b"") -> Any:
        return self.Hasher(data)


def test_pages_whose_digests_begin_alike_are_kept_apart(tmp_path: Path) -> None:
    images = {"pages-1.img": pages(1, 2, 3, 1, 2, 3, 0)}
    packed(tmp_path / "1", images, seal=Alike())
    packed(tmp_path / "2", images, [tmp_path / "1"], seal=Alike())
    assert read_back(tmp_path / "1") == read_back(tmp_path / "2") == images


def test_with_a_key_pages_are_shared_as_without_and_open_with_no_other(tmp_path: Path) -> None:
    ours, other = KeyedSeal(bytes(32)), KeyedSeal(bytes(31) + b"1")
    first = {"pages-1.img": noise("a", 1500) + pages(*range(1, 2000, 2), 0, 0)}
    second = {"pages-1.img": first["pages-1.img"] + noise("b", 3)}
    packed(tmp_path / "1", first, seal=ours)
    told = packed(tmp_path / "2", second, [tmp_path / "1"], seal=ours)
    assert (told.new_pages, told.known_pages) == (3, 2500)
    assert read_back(tmp_path / "2", ours) == second
    for wrong in (other, PLAIN):
        with pytest.raises(DamagedError):
            read_back(tmp_path / "2", wrong)
        assert packed(tmp_path / f"3-{wrong.is_plain}", second, [tmp_path / "2"], seal=wrong).known_pages == 0
    data = b"".join(path.read_bytes() for path in pack_files(tmp_path / "2"))
    assert noise("a", 1)[:32] not in data


def test_a_frame_that_was_put_in_from_another_store_is_noticed_though_its_checksums_are_right(tmp_path: Path) -> None:
    """Not even the pages.index of the one makes sense with the key of the other."""
    one, other = KeyedSeal(bytes(32)), KeyedSeal(bytes(31) + b"1")
    packed(tmp_path / "1", {"pages-1.img": noise("a", 5)}, seal=one)
    packed(tmp_path / "2", {"pages-1.img": noise("b", 5)}, seal=other)
    shutil.rmtree(tmp_path / "1" / "packs")
    shutil.copytree(tmp_path / "2" / "packs", tmp_path / "1" / "packs")
    shutil.copy(tmp_path / "2" / "pages.index", tmp_path / "1" / "pages.index")
    with pytest.raises(DamagedError, match="not sealed with this key"):
        read_back(tmp_path / "1", one)
