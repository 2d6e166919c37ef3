"""Captures made of pages of our choosing, and what streams back of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from criu_train.archive.captured import PAGE, Captured, CapturedImage, Extent
from criu_train.archive.packing import Pace, Packed, pack
from criu_train.archive.stored import StoredPages
from criu_train.store.seal import PLAIN, Seal

Images = Mapping[str, bytes]


class Bytes:
    """Memory that holds images in extents of at most ``longest`` bytes, apart from each other and out of order."""

    def __init__(self, longest: int = 1 << 40) -> None:
        self._longest = longest
        self._at: dict[int, bytes] = {}

    def hold(self, name: str, data: bytes) -> CapturedImage:
        extents = []
        for start in range(0, len(data), self._longest):
            piece = data[start : start + self._longest]
            offset = (1 << 40) - (len(self._at) + 1) * (1 << 30)
            self._at[offset] = piece + bytes(-len(piece) % PAGE)
            extents.append(Extent(offset, len(piece)))
        return CapturedImage(name, len(data), tuple(extents))

    def view(self, extent: Extent) -> memoryview:
        return memoryview(self._at[extent.offset])[: extent.length]


class Steady:
    """Always the same level."""

    def __init__(self, level: int | None = 3) -> None:
        self._level = level

    def level(self, raw_left: int, done: float) -> int | None:
        assert raw_left >= 0 and 0 <= done <= 1
        return self._level

    def in_thread(self) -> None:
        """Any thread may do its work."""


STEADY = Steady()


def captured(images: Images, longest: int = 1 << 40) -> Captured:
    memory = Bytes(longest)
    return Captured(tuple(memory.hold(name, data) for name, data in images.items()), {}, memory)


def packed(
    snapshot: Path,
    images: Images,
    earlier: Sequence[Path] = (),
    *,
    pace: Pace = STEADY,
    longest: int = 1 << 40,
    reserve: int = 0,
    hashed: int | None = None,
    seal: Seal = PLAIN,
) -> Packed:
    """Pack images into a new snapshot directory; with ``hashed``, only about so many pages are looked at."""
    snapshot.mkdir()
    all_bytes = sum(map(len, images.values()))

    def may_hash(left: int) -> bool:
        return hashed is None or all_bytes - left < hashed * PAGE

    return pack(captured(images, longest), snapshot, earlier, pace=pace, reserve=reserve, may_hash=may_hash, seal=seal)


def stream(stored: StoredPages, name: str) -> bytes:
    data = bytearray()
    stored.stream(name, data.extend)
    return bytes(data)


def read_back(snapshot: Path, seal: Seal = PLAIN) -> dict[str, bytes]:
    """Everything, checked the way a restore checks it."""
    with closing(StoredPages.open(snapshot, seal=seal)) as stored:
        stored.check_unused()
        return {name: stream(stored, name) for name in stored.names}


def pages(*kinds: int | str) -> bytes:
    """Pages by number: 0 is zeros, the same number the same bytes; odd ones compress, even ones do not."""
    return b"".join(page(kind) for kind in kinds)


def page(kind: int | str) -> bytes:
    if kind == 0:
        return bytes(PAGE)
    data = random.Random(kind).randbytes(PAGE)
    return data if isinstance(kind, int) and kind % 2 == 0 else data[: PAGE // 16] * 16


def noise(seed: int | str, count: int) -> bytes:
    """Pages that do not compress."""
    return random.Random(seed).randbytes(count * PAGE)


def pack_files(snapshot: Path) -> list[Path]:
    return sorted((snapshot / "packs").iterdir())


def inodes(files: Iterable[Path]) -> set[int]:
    return {file.stat().st_ino for file in files}
