"""Blobs that go from snapshot to snapshot: rotten ones are found out, output is saved whatever its size."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from workshop import Taken, Workshop

from criu_train.workspace import saver
from criu_train.workspace.blobs import PART_BYTES, is_sound

NAMES = ("a", "b", "c", "d")


def flip(blob: Path) -> None:
    data = bytearray(blob.read_bytes())
    data[7] ^= 1
    blob.write_bytes(data)


def shorten(blob: Path) -> None:
    os.truncate(blob, 7)


def blobs_of(taken: Taken, shop: Workshop, name: str) -> list[Path]:
    entry = next(entry for entry in taken.listing.entries if entry.path == str(shop.work / name))
    assert entry.parts is not None
    return [taken.path / "files" / part.digest for part in entry.parts]


@pytest.mark.parametrize("rot", [flip, shorten])
def test_a_rotten_blob_is_not_linked_into_the_next_snapshot_but_written_afresh(
    shop: Workshop, rot: Callable[[Path], None]
) -> None:
    shop.start()
    shop.ours(*(["write", name, name * 1000] for name in NAMES))
    time.sleep(0.03)
    first = shop.take()
    rot(blobs_of(first, shop, "b")[0])
    for taken in (shop.take(), shop.take()):
        (blob,) = blobs_of(taken, shop, "b")
        assert blob.read_bytes() == b"b" * 1000
        assert blobs_of(first, shop, "a")[0].samefile(blobs_of(taken, shop, "a")[0])


def test_the_size_of_every_blob_is_looked_at_before_it_is_linked(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "_CHECK_BYTES", 0)
    shop.start()
    shop.ours(["write", "b", "b" * 1000])
    time.sleep(0.03)
    shorten(blobs_of(shop.take(), shop, "b")[0])
    assert blobs_of(shop.take(), shop, "b")[0].read_bytes() == b"b" * 1000


def test_each_blob_is_read_again_in_turn(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "_CHECK_BYTES", 1500)
    read: list[str] = []

    def reading(blob: Path) -> bool:
        read.append(blob.name)
        return is_sound(blob)

    monkeypatch.setattr(saver, "is_sound", reading)
    shop.start()
    shop.ours(*(["write", name, name * 1000] for name in NAMES))
    time.sleep(0.03)
    for _ in range(5):
        shop.take()
    assert len(read) == 8
    assert set(read[:4]) == set(read[4:])
    assert len(set(read)) == 4


def test_output_is_saved_whatever_its_size(shop: Workshop) -> None:
    output = shop.store / "output.log"
    shop.policy = dataclasses.replace(shop.policy, file_limit=1000, include=(str(output),))
    shop.start()
    shop.ours(["hold", str(output), "x" * 5000], ["write", "large", "x" * 5000])
    draft = shop.precopy()
    shop.ours(["poke", 0, "more"])
    taken = shop.cut(draft)
    assert taken.listing.unsaved == (str(shop.work / "large"),)
    entry = next(entry for entry in taken.listing.entries if entry.path == str(output))
    assert entry.parts is not None
    assert b"".join((draft / "files" / part.digest).read_bytes() for part in entry.parts) == b"x" * 5000 + b"more"
    shop.kill(at_rest=True)
    output.unlink()
    shop.roll_back(taken)
    assert output.read_bytes() == b"x" * 5000 + b"more"


def test_of_large_output_that_grew_only_the_end_is_read_while_the_tree_stands_still(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = shop.store / "output.log"
    output.write_bytes(os.urandom(5 * PART_BYTES))
    shop.policy = dataclasses.replace(shop.policy, include=(str(output),))
    shop.start()
    shop.ours(["hold", str(output), "first"])
    draft = shop.precopy()
    shop.ours(["poke", 0, "second"])
    shop.sync()
    preadv, read = os.preadv, []

    def reading(fd: int, buffers: list[memoryview], offset: int) -> int:
        count = preadv(fd, buffers, offset)
        read.append(count)
        return count

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", reading)
        shop.tracker.cut(shop.pids, draft / "files")
    assert 0 < sum(read) <= len("firstsecond")
    listing = shop.tracker.finish(draft / "files")
    entry = next(entry for entry in listing.entries if entry.path == str(output))
    assert entry.parts is not None
    saved = b"".join((draft / "files" / part.digest).read_bytes() for part in entry.parts)
    assert saved == output.read_bytes()
