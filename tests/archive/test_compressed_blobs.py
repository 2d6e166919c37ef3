"""Saved files are compressed after the cut, and found by what they hold in either form."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from criu_train.archive.blobs import compress_blobs
from criu_train.archive.zstd import compress
from criu_train.store.blob import blobs_in, parse
from criu_train.store.digest import digest_file
from criu_train.store.seal import PLAIN, KeyedSeal, Seal
from criu_train.workspace.blobs import PART_BYTES, BlobReader, BlobWriter, is_sound, write_parts
from criu_train.workspace.listing import Part


class AtOnce:
    def __init__(self, level: int | None = 3) -> None:
        self._level = level

    def level(self, raw_left: int, done: float) -> int | None:
        return self._level

    def in_thread(self) -> None:
        pass


TEXT = b"step 17 loss 0.25\n" * 10_000
NOISE = os.urandom(100_000)


def save(directory: Path, data: bytes, *sources: Path, seal: Seal = PLAIN) -> tuple[Part, ...]:
    directory.mkdir(exist_ok=True)
    (original := directory.parent / "original").write_bytes(data)
    with original.open("rb") as file:
        return BlobWriter(directory, sources, seal=seal).save(file.fileno(), len(data))


def read(directory: Path, parts: tuple[Part, ...], seal: Seal = PLAIN) -> bytes:
    target = directory.parent / "again"
    with target.open("w+b") as file:
        write_parts(file.fileno(), BlobReader(directory, seal), parts)
    return target.read_bytes()


def test_text_shrinks_noise_stays_and_both_come_back(tmp_path: Path) -> None:
    text, noise = save(tmp_path / "files", TEXT), save(tmp_path / "files", NOISE)
    compress_blobs(tmp_path / "files", AtOnce())
    names = blobs_in(tmp_path / "files")
    assert parse(names[text[0].digest]).is_compressed  # type: ignore[union-attr]
    assert (tmp_path / "files" / names[text[0].digest]).stat().st_size < len(TEXT) / 10
    assert names[noise[0].digest] == noise[0].digest
    assert read(tmp_path / "files", text) == TEXT
    assert read(tmp_path / "files", noise) == NOISE


def test_sealed_blobs_are_compressed_and_linked_like_others_and_open_with_their_key_only(tmp_path: Path) -> None:
    seal = KeyedSeal(bytes(32))
    first, second = tmp_path / "1" / "files", tmp_path / "2" / "files"
    first.parent.mkdir()
    second.parent.mkdir()
    text, noise = save(first, TEXT, seal=seal), save(first, NOISE, seal=seal)
    assert all(TEXT[:18] not in path.read_bytes() and is_sound(path) for path in first.iterdir())
    compress_blobs(first, AtOnce(), seal)
    compress_blobs(first, AtOnce(), seal)
    sizes = {parts: (first / blobs_in(first)[parts[0].digest]).stat().st_size for parts in (text, noise)}
    assert sizes[text] < len(TEXT) / 10 and sizes[noise] == len(NOISE) + 1 + seal.overhead
    assert save(second, TEXT, first, seal=seal) == text
    assert next(second.iterdir()).stat().st_nlink == 2
    assert (read(first, text, seal), read(first, noise, seal), read(second, text, seal)) == (TEXT, NOISE, TEXT)
    for wrong in (KeyedSeal(bytes(31) + b"1"), PLAIN):
        with pytest.raises(OSError, match="can't be unpacked"):
            read(first, text, wrong)


def test_the_name_of_a_compressed_blob_tells_size_and_digest_of_its_file(tmp_path: Path) -> None:
    save(tmp_path / "files", TEXT)
    compress_blobs(tmp_path / "files", AtOnce())
    (path,) = (tmp_path / "files").iterdir()
    name = parse(path.name)
    assert name is not None
    assert (name.size, name.stored) == (path.stat().st_size, digest_file(path))
    assert is_sound(path)


@pytest.mark.parametrize("at", [0, 5, -1])
def test_a_flipped_byte_in_a_compressed_blob_is_found(tmp_path: Path, at: int) -> None:
    save(tmp_path / "files", TEXT)
    compress_blobs(tmp_path / "files", AtOnce())
    (path,) = (tmp_path / "files").iterdir()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert not is_sound(path)


def test_the_next_snapshot_links_the_compressed_blob(tmp_path: Path) -> None:
    save(tmp_path / "first", TEXT)
    compress_blobs(tmp_path / "first", AtOnce())
    parts = save(tmp_path / "second", TEXT, tmp_path / "first")
    compress_blobs(tmp_path / "second", AtOnce())
    (old,), (new,) = (tmp_path / "first").iterdir(), (tmp_path / "second").iterdir()
    assert old.samefile(new)
    assert read(tmp_path / "second", parts) == TEXT


def test_a_compressed_blob_that_was_cut_short_is_not_linked(tmp_path: Path) -> None:
    save(tmp_path / "first", TEXT)
    compress_blobs(tmp_path / "first", AtOnce())
    (old,) = (tmp_path / "first").iterdir()
    os.truncate(old, 5)
    parts = save(tmp_path / "second", TEXT, tmp_path / "first")
    assert read(tmp_path / "second", parts) == TEXT


def test_blobs_of_earlier_snapshots_stay_as_they_are(tmp_path: Path) -> None:
    save(tmp_path / "first", TEXT)
    save(tmp_path / "second", TEXT, tmp_path / "first")
    compress_blobs(tmp_path / "second", AtOnce())
    (old,), (new,) = (tmp_path / "first").iterdir(), (tmp_path / "second").iterdir()
    assert old.samefile(new)
    assert not parse(new.name).is_compressed  # type: ignore[union-attr]


def test_without_time_blobs_stay_plain(tmp_path: Path) -> None:
    parts = save(tmp_path / "files", TEXT)
    compress_blobs(tmp_path / "files", AtOnce(None))
    assert [path.name for path in (tmp_path / "files").iterdir()] == [parts[0].digest]


def test_a_blob_that_gives_trouble_stays_plain_until_the_next_time(tmp_path: Path) -> None:
    parts = [*save(tmp_path / "files", TEXT), *save(tmp_path / "files", TEXT * 2)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    small = min(len(compress(TEXT, 3)), len(compress(TEXT * 2, 3)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (small - 1, limits[1]))
    try:
        compress_blobs(tmp_path / "files", AtOnce())  # not one can be written
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in (tmp_path / "files").iterdir()} == {part.digest for part in parts}
    compress_blobs(tmp_path / "files", AtOnce())
    assert not {path.name for path in (tmp_path / "files").iterdir()} & {part.digest for part in parts}


def test_the_pace_is_told_how_much_is_left(tmp_path: Path) -> None:
    asked: list[int] = []

    class Watches:
        def level(self, raw_left: int, done: float) -> int | None:
            asked.append(raw_left)
            return 3

    for number in range(3):
        save(tmp_path / "files", TEXT + bytes([number]))
    compress_blobs(tmp_path / "files", Watches())
    assert asked == [(len(TEXT) + 1) * count for count in (3, 2, 1)]


def test_a_file_of_several_parts_comes_back(tmp_path: Path) -> None:
    data = TEXT * 40 + bytes(PART_BYTES) + NOISE
    parts = save(tmp_path / "files", data)
    assert len(parts) > 2
    compress_blobs(tmp_path / "files", AtOnce())
    assert read(tmp_path / "files", parts) == data
