"""A pack: pages that were seen for the first time, in frames that can be read one by one.

    frames    one after the other, each up to FRAME_PAGES pages: a zstd frame, or stored as they are
    index     a record a frame (FRAME); then the 16-byte digest of every page, by which later snapshots find it again:
              zeros, which nothing is found by, where there was no time to take one
    footer    where the index begins, pages, frames, version, magic

Of an encrypted store, each frame is sealed by itself, and pages are named by keyed digests (``seal``).

The digest of index and footer together (``PackEntry.tail``) stands in ``pages.index``, those of the frames stand in
the index: not one byte is without a checksum. The file is named by the digest of all of it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from criu_train.archive.captured import PAGE
from criu_train.archive.damage import DamagedError
from criu_train.archive.direct import DirectFile
from criu_train.archive.zstd import Bytes, ZstdError, decompress_into
from criu_train.store.seal import PLAIN, Seal, SealError

FRAME_PAGES = 1024
FRAME_BYTES = FRAME_PAGES * PAGE
FRAME_ROOM = FRAME_BYTES + 64  # as a frame is stored, sealed or not
DIGEST_BYTES = 16
RAW, ZSTD = 0, 1
FRAME = np.dtype([("stored", "<u4"), ("pages", "<u2"), ("codec", "<u2"), ("digest", f"V{DIGEST_BYTES}")])
_FOOTER = struct.Struct("<QQII8s")
_MAGIC = b"CRTRPACK"
_VERSION = 1
_FRAME = "frame"  # what is sealed; which frame it is tells its digest in the index
PACKS = "packs"


@dataclass(frozen=True, slots=True)
class PackEntry:
    """What ``pages.index`` says of a pack: file name, bytes, digest of its tail (both hexadecimal), pages."""

    name: str
    size: int
    tail: str
    pages: int


def seal_frame(data: Bytes, seal: Seal) -> Bytes:
    """A frame as it is stored."""
    return seal.seal(data, _FRAME)


def short_digest(data: Bytes) -> bytes:
    """The first 16 bytes of the BLAKE3 digest."""
    return blake3(data).digest(DIGEST_BYTES)


class PackWriter:
    """Writes one pack into ``directory`` under a temporary name. Every call may raise OSError.

    ``in_thread`` is called first in the thread that writes, beside the one that hashes and appends.
    """

    def __init__(self, directory: Path, in_thread: Callable[[], object] = lambda: None) -> None:
        self._file = DirectFile(directory / ".pack.tmp", in_thread)
        self._hasher = blake3()
        self._frames: list[tuple[int, int, int, bytes]] = []
        self._page_digests: list[bytes] = []
        self.pages = 0

    def add(self, stored: Bytes, codec: int, digest: bytes, page_digests: bytes) -> None:
        """Append a frame: its bytes as stored, their short digest, and the digests of its pages, joined."""
        pages = len(page_digests) // DIGEST_BYTES
        self._append(stored)
        self._frames.append((len(memoryview(stored).cast("B")), pages, codec, digest))
        self._page_digests.append(page_digests)
        self.pages += pages

    def finish(self) -> PackEntry:
        """Write the tail, fsync, give the file its name. The directory is left to the caller to fsync."""
        index_at = self._file.size
        records = np.array(self._frames, dtype=FRAME).tobytes()
        footer = _FOOTER.pack(index_at, self.pages, len(self._frames), _VERSION, _MAGIC)
        tail = b"".join([records, *self._page_digests, footer])
        self._append(tail)
        self._file.finish()
        name = self._hasher.hexdigest()
        self._file.path.rename(self._file.path.with_name(name))
        return PackEntry(name, self._file.size, blake3(tail).hexdigest(), self.pages)

    def abort(self) -> None:
        """Remove what was written; after ``finish`` nothing happens."""
        self._file.close()
        self._file.path.unlink(missing_ok=True)

    def _append(self, data: Bytes) -> None:
        self._hasher.update(data)
        self._file.append(data)


class PackReader:
    """An open pack whose tail was checked. ``first_pages`` and ``offsets`` say where each frame begins.

    All calls raise DamagedError when the file is not what ``entry`` says, or can't be read; they may come from
    several threads.
    """

    def __init__(self, directory: Path, entry: PackEntry, seal: Seal = PLAIN) -> None:
        self.path = directory / entry.name
        self.entry = entry
        self._seal = seal
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise DamagedError.unreadable(self.path, error) from error
        try:
            tail = self._check_tail()
        except BaseException:
            self.close()
            raise
        count = _FOOTER.unpack_from(tail, len(tail) - _FOOTER.size)[2]
        self.frames: NDArray[np.void] = np.frombuffer(tail, FRAME, count).copy()
        self.first_pages = _starts(self.frames["pages"])
        self.offsets = _starts(self.frames["stored"])

    def __len__(self) -> int:
        return len(self.frames)

    def page_digests(self) -> NDArray[np.uint64]:
        """The digest of every page, shape (pages, 2)."""
        tail = self._check_tail()
        return np.frombuffer(tail, "<u8", 2 * self.entry.pages, len(self.frames) * FRAME.itemsize).reshape(-1, 2)

    def check(self, number: int, buffer: memoryview) -> None:
        """Read a frame, as it is stored, into ``buffer`` (at least FRAME_ROOM) and compare its digest."""
        self._read_frame(number, buffer)

    def load(self, number: int, out: memoryview) -> int:
        """The checked pages of a frame into ``out`` (at least FRAME_BYTES); the number of bytes."""
        frame = self.frames[number]
        expected = int(frame["pages"]) * PAGE
        if frame["codec"] == RAW and self._seal.is_plain:
            self._read_frame(number, out)
            return expected
        stored = memoryview(bytearray(int(frame["stored"])))
        self._read_frame(number, stored)
        try:
            data = self._seal.unseal(stored, _FRAME)
            if frame["codec"] == RAW:
                out[:expected] = data
                return expected
            got = decompress_into(data, out[:expected])
        except SealError as error:
            raise DamagedError(self.path, "has a frame that was not sealed with this key") from error
        except ZstdError as error:
            raise DamagedError(self.path, f"has a frame that can't be unpacked: {error}") from error
        if got != expected:
            raise DamagedError(self.path, "has a frame of another length than its index says")
        return got

    def forget_cache(self) -> None:
        """Let the next read come from the disk: memory would answer for it."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _read_frame(self, number: int, buffer: memoryview) -> None:
        frame = self.frames[number]
        view = buffer[: int(frame["stored"])]
        self._read(view, int(self.offsets[number]))
        if short_digest(view) != frame["digest"].tobytes():
            raise DamagedError(self.path, "has changed: the checksum of a frame is wrong")

    def _check_tail(self) -> bytearray:
        """Index and footer, checked."""
        try:
            size = os.fstat(self._fd).st_size
        except OSError as error:
            raise DamagedError.unreadable(self.path, error) from error
        if size != self.entry.size:
            raise DamagedError(self.path, f"has {size} bytes instead of {self.entry.size}")
        footer = bytearray(_FOOTER.size)
        if size < len(footer):
            raise DamagedError(self.path, "is too short to be a pack")
        self._read(memoryview(footer), size - len(footer))
        index_at, pages, frames, version, magic = _FOOTER.unpack(footer)
        length = frames * FRAME.itemsize + pages * DIGEST_BYTES + len(footer)
        if (version, magic, pages, index_at + length) != (_VERSION, _MAGIC, self.entry.pages, size):
            raise DamagedError(self.path, "has a footer that says something else than pages.index")
        tail = bytearray(length)
        self._read(memoryview(tail), index_at)
        if blake3(tail).hexdigest() != self.entry.tail:
            raise DamagedError(self.path, "has changed: the checksum of its index is wrong")
        if not _fits(np.frombuffer(tail, FRAME, frames), index_at, pages, self._seal.overhead):
            raise DamagedError(self.path, "has an index that does not fit its frames")
        return tail

    def _read(self, view: memoryview, offset: int) -> None:
        while len(view):
            try:
                count = os.preadv(self._fd, [view], offset)
            except OSError as error:
                raise DamagedError.unreadable(self.path, error) from error
            if count == 0:
                raise DamagedError(self.path, "has become shorter")
            view, offset = view[count:], offset + count


def _fits(frames: NDArray[np.void], stored: int, pages: int, overhead: int) -> bool:
    """Whether the frames fill so many bytes and pages, and are of possible sizes; ``overhead``: of each one's seal."""
    sizes, counts = frames["stored"].astype(np.int64), frames["pages"].astype(np.int64)
    raw = frames["codec"] == RAW
    return bool(
        (sizes.sum(), counts.sum()) == (stored, pages)
        and (raw | (frames["codec"] == ZSTD)).all()
        and (sizes[raw] == counts[raw] * PAGE + overhead).all()
        and sizes.max(initial=0) <= FRAME_BYTES + overhead
        and counts.max(initial=0) <= FRAME_PAGES
    )


def _starts(lengths: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Where each of consecutive stretches begins."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return ends - lengths
