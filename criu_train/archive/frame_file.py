"""Unpacked frames on the disk, for images that hop to and fro between more frames than memory holds.

An image that is a shuffled copy of another one would unpack a frame for every page; from here its pages are read one
by one.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from threading import Lock
from typing import IO

from criu_train.archive.captured import PAGE
from criu_train.archive.damage import DamagedError
from criu_train.archive.pack import DIGEST_BYTES, short_digest
from criu_train.store.seal import PLAIN, Seal

_ABOUT = "page"


class FrameFile:
    """A file without a name in ``directory``, made when it is needed; slots of ``size`` bytes.

    ``seal``: the store's; each page is sealed by itself.
    """

    def __init__(self, directory: Path, *, size: int, seal: Seal = PLAIN) -> None:
        self._directory = directory
        self._seal = seal
        self._stored = PAGE + seal.overhead  # a page on the disk
        self._size = size // PAGE * self._stored
        self._file: IO[bytes] | None = None
        self._digests: dict[int, bytes] = {}  # of each page: a file that was written can rot as well
        self._lock = Lock()

    def __contains__(self, number: int) -> bool:
        return number in self._digests

    def keep(self, number: int, pages: memoryview) -> bool:
        """Write a frame down, unless it is there; False where there is no room for it."""
        with self._lock:
            if number in self._digests:
                return True
            starts = range(0, len(pages), PAGE)
            stored = [self._seal.seal(pages[at : at + PAGE], _ABOUT) for at in starts]
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(buffering=0, dir=self._directory)  # noqa: SIM115 (close)
                rest, at = memoryview(b"".join(stored)), number * self._size
                while rest:
                    count = os.pwrite(self._file.fileno(), rest, at)
                    rest, at = rest[count:], at + count
            except OSError:
                return False
            self._digests[number] = b"".join([short_digest(page) for page in stored])
            return True

    def read(self, number: int, offset: int, length: int) -> memoryview:
        """Whole pages of a frame that was kept. Raises DamagedError."""
        assert self._file is not None
        digests = self._digests[number][offset // PAGE * DIGEST_BYTES :]
        try:
            at, room = number * self._size + offset // PAGE * self._stored, length // PAGE * self._stored
            data = memoryview(os.pread(self._file.fileno(), room, at))
        except OSError as error:
            raise DamagedError.unreadable(self._directory, error) from error
        pages = [data[at : at + self._stored] for at in range(0, room, self._stored)]
        for which, page in enumerate(pages):
            if short_digest(page) != digests[which * DIGEST_BYTES : (which + 1) * DIGEST_BYTES]:
                raise DamagedError(self._directory, "lies on a disk that does not give back what was written")
        return (
            data if self._seal.is_plain else memoryview(b"".join([self._seal.unseal(page, _ABOUT) for page in pages]))
        )

    def close(self) -> None:
        """Give the room back."""
        if self._file is not None:
            self._file.close()
