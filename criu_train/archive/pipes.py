"""Waiting for CRIU's pipes without ever being stuck in one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import struct
import termios
import time

# What anybody may ask for, unless the system was told otherwise.
_PIPE_BYTES = 1 << 20


class StoppedError(Exception):
    """What was waited for is not wanted any more."""


class StopSign:
    """Ends every wait in every thread, for good."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._fd

    def set(self) -> None:
        os.eventfd_write(self._fd, 1)

    @property
    def is_set(self) -> bool:
        return bool(select.select([self._fd], [], [], 0)[0])

    def wait(self, fd: int | None = None, events: int = 0) -> None:
        """Wait until the descriptor is ready, or without one for ever. Raises StoppedError when the sign is set."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if fd is not None:
            poll.register(fd, events)
        if any(ready == self._fd for ready, _ in poll.poll()):
            raise StoppedError

    def __del__(self) -> None:
        os.close(self._fd)


def enlarge(pipe: int) -> None:
    """Let the pipe hold more than it usually does: either side waits less often for the other."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def write_all(pipe: int, data: memoryview, stop: StopSign) -> None:
    """Write to a pipe that does not block. Raises StoppedError, and BrokenPipeError when nobody reads any more."""
    while data:
        try:
            data = data[os.write(pipe, data) :]
        except BlockingIOError:
            stop.wait(pipe, select.POLLOUT)


class _Stretch(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
_NONBLOCK = 2  # SPLICE_F_NONBLOCK
# How fast a reader is taken to be (bytes a second), how soon one that is slower is looked at, and one that pauses.
_READER_RATE, _LOOK_S, _PAUSE_S = 2e9, 0.00005, 0.002


def lend_all(pipe: int, data: memoryview, stop: StopSign) -> None:
    """As ``write_all``, but the reader copies out of ``data`` itself, which must be writable: no copy is made for it.

    Returns when the reader has everything; only then may the memory be changed. For pipes that nobody else fills.
    """
    first = (ctypes.c_char * len(data)).from_buffer(data) if len(data) else None
    base = ctypes.addressof(first) if first is not None else 0
    done = 0
    while done < len(data):
        stretch = _Stretch(base + done, len(data) - done)
        count = _libc.vmsplice(pipe, ctypes.byref(stretch), 1, _NONBLOCK)
        if count >= 0:
            done += count
            continue
        if (error := ctypes.get_errno()) != errno.EAGAIN:
            raise OSError(error, os.strerror(error))
        stop.wait(pipe, select.POLLOUT)
    pause, before = _LOOK_S, 0
    while unread := struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]:
        _look_for_the_end(pipe, stop)
        pause = min(2 * pause, _PAUSE_S) if unread == before else _LOOK_S
        before = unread
        time.sleep(max(pause, unread / _READER_RATE))


def _look_for_the_end(pipe: int, stop: StopSign) -> None:
    poll = select.poll()
    poll.register(stop, select.POLLIN)
    poll.register(pipe, 0)
    for ready, _ in poll.poll(0):
        if ready == pipe:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        raise StoppedError
