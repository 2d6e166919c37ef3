"""The bytes of files, cut into parts that are named by their digest, so that what did not change is not copied again.

A part keeps its extent from one snapshot to the next: where the bytes are the same the old blob is linked; only what
differs, and what was appended, is written. Saving reads each file once and never the old blobs.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from criu_train.workspace.listing import Part

# Large enough that a 1 GiB file has 256 blobs; small enough that a changed page of a memory map costs 7 ms frozen.
PART_BYTES = 4 << 20
# More parts than whole ones and these: a log that grew by many small tails is cut anew.
_TAILS_MAX = 64
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ZERO_DIGEST = blake3(bytes(PART_BYTES)).hexdigest()


def open_to_read(path: str) -> int:
    """Never blocks (FIFO), follows no symlink, leaves the access time alone where that is allowed."""
    try:
        return os.open(path, _READ | os.O_NOATIME)
    except PermissionError:
        return os.open(path, _READ)


class BlobWriter:
    """Saves files into one snapshot's blob directory; ``sources`` are those of earlier snapshots, newest first.

    ``rotten``: inodes of blobs that no longer hold what their names say; such bytes are written afresh.
    """

    def __init__(self, directory: Path, sources: Sequence[Path], rotten: Collection[int] = ()) -> None:
        self.directory = str(directory)
        self._rotten = rotten
        self._sources = [str(source) for source in sources]
        self._present = set(os.listdir(directory))  # noqa: PTH208
        self._buffer = bytearray(PART_BYTES)

    def link(self, parts: Sequence[Part]) -> bool:
        """Take unchanged parts over from an earlier snapshot; False when one is gone."""
        return all(self._link(part) for part in parts)

    def save(self, fd: int, size: int, old: Sequence[Part] = (), *, grown: bool = False) -> tuple[Part, ...]:
        """The first ``size`` bytes of the file, as parts; extents follow ``old`` where the file had been saved.

        ``grown``: the file is only ever appended to; of what had been saved only the last part is read again.
        A file that shrinks meanwhile gives fewer bytes: the caller sees that its times changed.
        """
        known = tuple(old[:-1]) if grown and sum(part.size for part in old) <= size and self.link(old[:-1]) else ()
        view, offset, parts = memoryview(self._buffer), sum(part.size for part in known), list(known)
        for length in self._extents(size, old, skip=len(known)):
            got = _read_full(fd, view[:length], offset)
            if got == 0:
                break
            data = view[:got]
            part = Part(blake3(data).hexdigest(), got)
            if not self._link(part):
                self._write(part.digest, data)
            parts.append(part)
            offset += got
            if got < length:
                break
        return tuple(parts)

    def sweep(self, used: set[str]) -> None:
        """Remove blobs that were saved before the cut and have been overtaken since."""
        for name in self._present - used:
            os.unlink(f"{self.directory}/{name}")  # noqa: PTH108
        self._present &= used

    def _extents(self, size: int, old: Sequence[Part], *, skip: int) -> Iterator[int]:
        offset = sum(part.size for part in old[:skip])
        if skip or len(old) <= _TAILS_MAX + size // PART_BYTES:
            for part in old[skip:]:
                if offset + part.size > size:
                    break
                yield part.size
                offset += part.size
        while offset < size:
            length = min(PART_BYTES, size - offset)
            yield length
            offset += length

    def _link(self, part: Part) -> bool:
        name = part.digest
        if name in self._present:
            return True
        for source in self._sources:
            try:
                info = os.lstat(f"{source}/{name}")
                if info.st_size != part.size or info.st_ino in self._rotten:
                    continue
                os.link(f"{source}/{name}", f"{self.directory}/{name}")
            except OSError:
                continue
            self._present.add(name)
            return True
        return False

    def _write(self, name: str, data: memoryview) -> None:
        fd = os.open(f"{self.directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_full(fd, data)
        finally:
            os.close(fd)
        self._present.add(name)


def is_sound(blob: Path) -> bool:
    """Whether a blob, as it is on the disk, holds what its name says. OSError when it can't be opened."""
    hasher, view = blake3(), memoryview(bytearray(PART_BYTES))
    fd = os.open(blob, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # memory would answer for the disk
        with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
            while count := file.readinto(view):
                hasher.update(view[:count])
    except OSError:  # the disk can't read it
        return False
    finally:
        os.close(fd)
    return hasher.hexdigest() == blob.name


def same_prefix(fd: int, parts: Sequence[Part]) -> bool:
    """Whether the file begins with exactly these parts."""
    view, offset = memoryview(bytearray(PART_BYTES)), 0
    for part in parts:
        data = view[: part.size]
        if _read_full(fd, data, offset) != part.size or blake3(data).hexdigest() != part.digest:
            return False
        offset += part.size
    return True


def write_parts(fd: int, directory: Path, parts: Sequence[Part]) -> None:
    """Put a file's bytes together again; stretches of zeros stay holes. OSError when a blob is missing."""
    view, offset = memoryview(bytearray(PART_BYTES)), 0
    for part in parts:
        if part.digest != _ZERO_DIGEST:
            blob = os.open(directory / part.digest, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _read_full(blob, view[: part.size], 0) != part.size:
                    raise OSError(f"blob {part.digest} is too short")
            finally:
                os.close(blob)
            os.lseek(fd, offset, os.SEEK_SET)
            _write_full(fd, view[: part.size])
        offset += part.size
    os.ftruncate(fd, offset)


def _read_full(fd: int, view: memoryview, offset: int) -> int:
    got = 0
    while got < len(view):
        count = os.preadv(fd, [view[got:]], offset + got)
        if count == 0:
            break
        got += count
    return got


def _write_full(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
