"""Writing a large new file from front to end past the page cache.

Direct writes cost a tenth of the processor time of buffered ones, and the training keeps its cached files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from pathlib import Path

from criu_train.archive.zstd import Bytes

_BLOCK = 4096  # offsets, lengths and addresses of direct writes are multiples of this
_BUFFER = 4 << 20


class DirectFile:
    """A file that does not exist yet. ``size`` counts the bytes appended. Every call may raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._buffer = mmap.mmap(-1, _BUFFER)  # aligned to pages
        self._view = memoryview(self._buffer)
        self._filled = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        with contextlib.suppress(OSError):  # not every filesystem can; buffered then
            self._set_direct(os.O_DIRECT)

    def append(self, data: Bytes) -> None:
        """Add bytes at the end; they are written whenever the buffer is full."""
        rest = memoryview(data).cast("B")
        while len(rest):
            count = min(_BUFFER - self._filled, len(rest))
            self._view[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            self.size += count
            rest = rest[count:]
            if self._filled == _BUFFER:
                self._write(_BUFFER)

    def finish(self) -> None:
        """Write what is left, fsync, close."""
        self._write(self._filled // _BLOCK * _BLOCK)
        self._set_direct(0)
        self._write(self._filled)
        os.fsync(self._fd)
        self.close()

    def close(self) -> None:
        """Close without writing what is left."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._view.release()
            self._buffer.close()

    def _set_direct(self, flag: int) -> None:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~os.O_DIRECT
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | flag)

    def _write(self, length: int) -> None:
        done = 0
        while done < length:
            try:
                done += os.write(self._fd, self._view[done:length])
            except OSError as error:
                if error.errno != errno.EINVAL or not fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_DIRECT:
                    raise
                self._set_direct(0)  # said yes when it was opened, and could not
        if done % _BLOCK:  # a short direct write leaves the file at an odd place
            self._set_direct(0)
        self._view[: self._filled - done] = bytes(self._view[done : self._filled])
        self._filled -= done
