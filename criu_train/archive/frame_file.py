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


class FrameFile:
    """A file without a name in ``directory``, made when it is needed; slots of ``size`` bytes."""

    def __init__(self, directory: Path, *, size: int) -> None:
        self._directory = directory
        self._size = size
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
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(buffering=0, dir=self._directory)  # noqa: SIM115 (close)
                done = 0
                while done < len(pages):
                    done += os.pwrite(self._file.fileno(), pages[done:], number * self._size + done)
            except OSError:
                return False
            starts = range(0, len(pages), PAGE)
            self._digests[number] = b"".join([short_digest(pages[at : at + PAGE]) for at in starts])
            return True

    def read(self, number: int, offset: int, length: int) -> memoryview:
        """Whole pages of a frame that was kept. Raises DamagedError."""
        assert self._file is not None
        digests = self._digests[number][offset // PAGE * DIGEST_BYTES :]
        try:
            data = memoryview(os.pread(self._file.fileno(), length, number * self._size + offset))
        except OSError as error:
            raise DamagedError.unreadable(self._directory, error) from error
        for page, at in enumerate(range(0, length, PAGE)):
            if short_digest(data[at : at + PAGE]) != digests[page * DIGEST_BYTES : (page + 1) * DIGEST_BYTES]:
                raise DamagedError(self._directory, "lies on a disk that does not give back what was written")
        return data

    def close(self) -> None:
        """Give the room back."""
        if self._file is not None:
            self._file.close()
