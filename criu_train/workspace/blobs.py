"""The bytes of files, cut into parts that are named by their digest, so that what did not change is not copied again.

A part keeps its extent from one snapshot to the next: where the bytes are the same the old blob is linked; only what
differs, and what was appended, is written. Saving reads each file once and never the old blobs. New blobs are as large
as what is in them; the archive compresses them later. In an encrypted store each is sealed as it is written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from criu_train.store.blob import RAW, ZSTD, BlobName, blobs_in, compressed_name, parse, seal_blob, unseal_blob
from criu_train.store.seal import PLAIN, Seal, SealError
from criu_train.workspace.listing import Part

# Large enough that a 1 GiB file has 256 blobs; small enough that a changed page of a memory map costs 7 ms frozen.
PART_BYTES = 4 << 20
# More parts than whole ones and these: a log that grew by many small tails is cut anew.
_TAILS_MAX = 64
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_to_read(path: str) -> int:
    """Never blocks (FIFO), follows no symlink, leaves the access time alone where that is allowed."""
    try:
        return os.open(path, _READ | os.O_NOATIME)
    except PermissionError:
        return os.open(path, _READ)


class BlobWriter:
    """Saves files into one snapshot's blob directory; ``sources`` are those of earlier snapshots, newest first.

    ``rotten``: inodes of blobs that no longer hold what their names say; such bytes are written afresh. ``seal``: the
    store's.
    """

    def __init__(
        self, directory: Path, sources: Sequence[Path], rotten: Collection[int] = (), seal: Seal = PLAIN
    ) -> None:
        self.directory = str(directory)
        self._seal = seal
        self._rotten = rotten
        self._sources = [(str(source), blobs_in(source)) for source in sources]
        self._present = blobs_in(directory)
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
            part = Part(self._seal.hasher(data).hexdigest(), got)
            if not self._link(part):
                self._write(part.digest, data)
            parts.append(part)
            offset += got
            if got < length:
                break
        return tuple(parts)

    def sweep(self, used: set[str]) -> None:
        """Remove blobs that were saved before the cut and have been overtaken since."""
        for content in self._present.keys() - used:
            os.unlink(f"{self.directory}/{self._present.pop(content)}")  # noqa: PTH108

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
        if part.digest in self._present:
            return True
        for source, names in self._sources:
            if (name := names.get(part.digest)) is None:
                continue
            try:
                info = os.lstat(f"{source}/{name}")
                if info.st_size != _size(name, part) or info.st_ino in self._rotten:
                    continue
                os.link(f"{source}/{name}", f"{self.directory}/{name}")
            except OSError:
                continue
            self._present[part.digest] = name
            return True
        return False

    def _write(self, content: str, data: memoryview) -> None:
        name = content
        if not self._seal.is_plain:
            data = memoryview(seal_blob(data, content, RAW, self._seal))
            name = compressed_name(content, len(data), blake3(data).hexdigest())
        fd = os.open(f"{self.directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_full(fd, data)
        finally:
            os.close(fd)
        self._present[content] = name


class BlobReader:
    """The blobs of one snapshot, which have been verified. ``directory``: where they lie; ``seal``: the store's."""

    def __init__(self, directory: Path, seal: Seal = PLAIN) -> None:
        self.directory = directory
        self.seal = seal
        self._names = blobs_in(directory)

    def read(self, part: Part, buffer: memoryview) -> memoryview:
        """The bytes of a part, in the buffer (at least PART_BYTES). Raises OSError when there is no such blob."""
        view = buffer[: part.size]
        if (name := self._names.get(part.digest)) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.directory / part.digest))
        if _parsed(name).is_compressed:
            # Imported when needed only: a supervisor that waits has no use for it.
            from criu_train.archive.zstd import ZstdError, decompress_into

            try:
                data = memoryview((self.directory / name).read_bytes())
                codec = ZSTD
                if not self.seal.is_plain:
                    codec, data = unseal_blob(data, part.digest, self.seal)
                if codec == ZSTD:
                    got = decompress_into(data, view)
                else:
                    got = len(data)
                    view[:got] = data[: part.size]
            except (ZstdError, SealError) as error:
                raise OSError(f"blob {name} can't be unpacked: {error}") from error
        else:
            fd = os.open(self.directory / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                got = _read_full(fd, view, 0)
            finally:
                os.close(fd)
        if got != part.size:
            raise OSError(f"blob {name} is too short")
        return view


def is_sound(blob: Path) -> bool:
    """Whether a blob's file, as it is on the disk, is what its name says. OSError when it can't be opened."""
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
    return hasher.hexdigest() == _parsed(blob.name).stored


def same_prefix(fd: int, parts: Sequence[Part], seal: Seal = PLAIN) -> bool:
    """Whether the file begins with exactly these parts, named under ``seal``."""
    view, offset = memoryview(bytearray(PART_BYTES)), 0
    for part in parts:
        data = view[: part.size]
        if _read_full(fd, data, offset) != part.size or seal.hasher(data).hexdigest() != part.digest:
            return False
        offset += part.size
    return True


def write_parts(fd: int, blobs: BlobReader, parts: Sequence[Part]) -> None:
    """Put a file's bytes together again; stretches of zeros stay holes. OSError when a blob is missing."""
    buffer, offset = memoryview(bytearray(PART_BYTES)), 0
    zeros = blobs.seal.hasher(buffer).hexdigest()
    for part in parts:
        if part.digest != zeros:
            data = blobs.read(part, buffer)
            os.lseek(fd, offset, os.SEEK_SET)
            _write_full(fd, data)
        offset += part.size
    os.ftruncate(fd, offset)


def _parsed(name: str) -> BlobName:
    return parse(name) or BlobName(name, None, name)


def _size(name: str, part: Part) -> int:
    """What the blob's file has to have, in bytes."""
    size = _parsed(name).size
    return part.size if size is None else size


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
