"""Writing a large new file from front to end past the page cache.

Direct writes cost a tenth of the processor time of buffered ones, and the training keeps its cached files. They go on
in a thread of their own while the next bytes are made.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from criu_train.archive.zstd import Bytes

_BLOCK = 4096  # offsets, lengths and addresses of direct writes are multiples of this
_BUFFER = 4 << 20


class DirectFile:
    """A file that does not exist yet. ``size`` counts the bytes appended. Every call may raise OSError.

    ``in_thread`` is called first in the thread that writes.
    """

    def __init__(self, path: Path, in_thread: Callable[[], object] = lambda: None) -> None:
        self.path = path
        self.size = 0
        self._buffers = [memoryview(mmap.mmap(-1, _BUFFER)) for _ in range(2)]  # aligned to pages; filled in turn
        self._filled = 0
        self._written = 0  # or on its way
        self._writing: Future[None] | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        self._writer = ThreadPoolExecutor(1, initializer=in_thread)
        with contextlib.suppress(OSError):  # not every filesystem can; buffered then
            self._set_direct(os.O_DIRECT)

    def append(self, data: Bytes) -> None:
        """Add bytes at the end; they are written whenever a buffer is full."""
        rest = memoryview(data).cast("B")
        while len(rest):
            count = min(_BUFFER - self._filled, len(rest))
            self._buffers[0][self._filled : self._filled + count] = rest[:count]
            self._filled += count
            self.size += count
            rest = rest[count:]
            if self._filled == _BUFFER:
                self._settle()
                self._writing = self._writer.submit(self._write, self._buffers[0], self._written)
                self._written += _BUFFER
                self._buffers.reverse()
                self._filled = 0

    def finish(self) -> None:
        """Write what is left, fsync, close."""
        self._settle()
        whole = self._filled // _BLOCK * _BLOCK
        self._write(self._buffers[0][:whole], self._written)
        self._set_direct(0)
        self._write(self._buffers[0][whole : self._filled], self._written + whole)
        os.fsync(self._fd)
        self.close()

    def close(self) -> None:
        """Close without writing what is left."""
        if self._fd >= 0:
            self._writer.shutdown()
            os.close(self._fd)
            self._fd = -1
            self._buffers.clear()

    def _settle(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _set_direct(self, flag: int) -> None:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~os.O_DIRECT
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | flag)

    def _write(self, data: memoryview, at: int) -> None:
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(self._fd, data[done:], at + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_DIRECT:
                    raise
                self._set_direct(0)  # said yes when it was opened, and could not
            if done % _BLOCK:  # a short direct write goes on at an odd place
                self._set_direct(0)
