"""One pack, and the index beside it: what is written is what is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from archive_samples import noise, pages
from hypothesis import given, settings
from hypothesis import strategies as st

from criu_train.archive.captured import PAGE
from criu_train.archive.damage import DamagedError
from criu_train.archive.direct import DirectFile
from criu_train.archive.index import ZERO, ImageEntry, PagesIndex, read_index, write_index
from criu_train.archive.pack import (
    DIGEST_BYTES,
    FRAME_BYTES,
    RAW,
    ZSTD,
    PackEntry,
    PackReader,
    PackWriter,
    short_digest,
)
from criu_train.archive.zstd import ZstdError, compress, decompress_into
from criu_train.store.digest import digest_file


def write_pack(directory: Path, *frames: tuple[bytes, int]) -> PackEntry:
    """A pack with these frames: raw bytes and codec."""
    writer = PackWriter(directory)
    for raw, codec in frames:
        stored = compress(raw, 3) if codec == ZSTD else raw
        digests = b"".join(short_digest(raw[at : at + PAGE]) for at in range(0, len(raw), PAGE))
        writer.add(stored, codec, short_digest(stored), digests)
    return writer.finish()


def test_frames_come_back_whatever_their_kind(tmp_path: Path) -> None:
    frames = [(pages(1, 3, 5), ZSTD), (noise("a", 1024), RAW), (noise("b", 1), ZSTD), (pages(7) * 1024, ZSTD)]
    reader = PackReader(tmp_path, write_pack(tmp_path, *frames))
    buffer = memoryview(bytearray(FRAME_BYTES))
    for number in (3, 1, 0, 2):
        assert buffer[: reader.load(number, buffer)] == frames[number][0]
    assert reader.first_pages.tolist() == [0, 3, 1027, 1028]
    assert reader.page_digests()[3].tobytes() == short_digest(noise("a", 1024)[:PAGE])
    reader.close()


def test_a_pack_is_named_by_its_digest_and_private(tmp_path: Path) -> None:
    entry = write_pack(tmp_path, (noise("a", 3), RAW))
    (path,) = tmp_path.iterdir()
    assert path.name == entry.name == digest_file(path)
    assert (path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) == (entry.size, 0o600)


def test_a_frame_whose_index_lies_about_its_length_is_refused(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path)
    for raw in (noise("a", 2), noise("a", 4), b""):  # said to be three pages each
        stored = compress(raw, 3)
        writer.add(stored, ZSTD, short_digest(stored), bytes(3 * DIGEST_BYTES))
    reader = PackReader(tmp_path, writer.finish())
    for number in range(3):
        with pytest.raises(DamagedError):
            reader.load(number, memoryview(bytearray(FRAME_BYTES)))
    reader.close()


@pytest.mark.parametrize(("pages_said", "codec"), [(3, RAW), (2, 7), (1025, ZSTD)])
def test_an_index_that_can_not_be_is_refused(tmp_path: Path, pages_said: int, codec: int) -> None:
    writer = PackWriter(tmp_path)
    writer.add(noise("a", 2), codec, short_digest(noise("a", 2)), bytes(pages_said * DIGEST_BYTES))
    entry = writer.finish()
    with pytest.raises(DamagedError, match="does not fit its frames"):
        PackReader(tmp_path, entry)


def test_an_aborted_pack_leaves_nothing(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path)
    writer.add(noise("a", 1024), RAW, bytes(16), bytes(1024 * 16))
    writer.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "lengths", [(), (0,), (1,), (4096,), (4095, 1, 4097), (5 << 20, 3), (1 << 22, 1 << 22), (7,) * 999]
)
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_file_is_written_past_the_cache_whatever_its_length(
    place: Path, tmp_path: Path, lengths: tuple[int, ...], where: str
) -> None:
    directory = place if where == "disk" else Path("/dev/shm")
    path = directory / f"criu-train-test-{os.getpid()}"
    data = noise("direct", 2 * 1024 + 512)
    file, at = DirectFile(path), 0
    try:
        for length in lengths:
            file.append(memoryview(data)[at : at + length])
            at += length
        file.finish()
        assert path.read_bytes() == data[:at]
        assert file.size == at
    finally:
        path.unlink()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_references_survive_their_coding(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 40))
    places = st.sampled_from([0, 1, 2, 3, 254, 255, 256, 65535, 65536, 16777215, 16777216, ZERO - 1, ZERO])
    references = data.draw(st.lists(places, min_size=count, max_size=count))
    packs = (PackEntry("0" * 64, 1, "1" * 64, ZERO - 1), PackEntry("2" * 64, 1, "1" * 64, 1))
    cut = data.draw(st.integers(0, count))
    images = (ImageEntry("pages-1.img", cut * PAGE), ImageEntry("pages-2.img", (count - cut) * PAGE))
    directory = tmp_path_factory.mktemp("index")
    write_index(directory, PagesIndex(packs, images, np.array(references, np.uint32)))
    index = read_index(directory)
    assert (index.packs, index.images, index.references.tolist()) == (packs, images, references)
    assert [part.tolist() for part in index.by_image().values()] == [references[:cut], references[cut:]]


@pytest.mark.parametrize(
    ("packs", "images", "references"),
    [
        ([], [("pages-1.img", PAGE)], [0]),  # a page of no pack
        ([("0" * 64, 7)], [("pages-1.img", PAGE)], [7]),  # one beyond the last
        ([], [("../pages-1.img", PAGE)], [ZERO]),
        ([], [("pages-/../../x", PAGE)], [ZERO]),
        ([], [("core-1.img", PAGE)], [ZERO]),
        ([], [("pages-1.img", PAGE), ("pages-1.img", PAGE)], [ZERO, ZERO]),
        ([("../x", 1)], [], []),
        ([], [("pages-1.img", 2 * PAGE)], [ZERO]),
        ([], [("pages-1.img", PAGE)], [ZERO, ZERO]),
        ([], [("pages-1.img", -PAGE)], []),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(
    tmp_path: Path, packs: list[tuple[str, int]], images: list[tuple[str, int]], references: list[int]
) -> None:
    entries = tuple(PackEntry(name, 1, "1" * 64, count) for name, count in packs)
    named = tuple(ImageEntry(name, size) for name, size in images)
    write_index(tmp_path, PagesIndex(entries, named, np.array(references, np.uint32)))
    with pytest.raises(DamagedError, match="makes no sense"):
        read_index(tmp_path)


def test_ten_million_pages_in_order_need_a_small_index(tmp_path: Path) -> None:
    count = 10_000_000
    packs = (PackEntry("0" * 64, 1, "1" * 64, count),)
    references = np.arange(count, dtype=np.uint32)
    references[5_000_000:] = references[:5_000_000]  # a second process with the same pages
    references[::1000] = ZERO
    write_index(tmp_path, PagesIndex(packs, (ImageEntry("pages-1.img", count * PAGE),), references))
    assert (tmp_path / "pages.index").stat().st_size < count * PAGE / 1000
    assert np.array_equal(read_index(tmp_path).references, references)


def test_zstd_accepts_one_whole_frame_only() -> None:
    raw = pages(1, 2, 3) * 100
    frame, out = compress(raw, 3), memoryview(bytearray(len(raw)))
    assert decompress_into(frame, out) == len(raw)
    assert out == raw
    for wrong in (frame[:-1], frame + b"x", b"", frame[:3], b"not zstd at all"):
        with pytest.raises(ZstdError):
            decompress_into(wrong, out)
    with pytest.raises(ZstdError):
        decompress_into(frame, out[:-1])
