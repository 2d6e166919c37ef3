"""Waiting for CRIU's pipes without ever being stuck in one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select

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
