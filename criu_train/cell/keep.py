"""Keeping CRIU's sockets open beyond its death.

While CRIU dumps, each task runs a piece of CRIU's code that waits at a socket for orders. When CRIU is killed that
socket closes, and the task wakes up and goes on at once, perhaps into a recv(2) on a connection that is still taken
apart, which then fails with EPERM. A second descriptor of CRIU's end keeps the task waiting there until the
connections are mended. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438  # the same on every architecture; Linux 5.6 and newer

LOOK_EVERY_S = 0.003
# CRIU also holds the training's own sockets for a while; with all of a thousand we would run out of descriptors.
_KEPT_MAX = 256


class KeptSockets:
    """Second descriptors of one CRIU's sockets. Where the kernel refuses them, nothing is kept and nothing fails."""

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}
        self._pidfd = self._pid = -1

    def look(self, pid: int) -> None:
        """Take hold of the sockets that this CRIU has opened since the last look."""
        with contextlib.suppress(OSError):
            if pid != self._pid:
                self.close()
                self._pidfd, self._pid = os.pidfd_open(pid), pid
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - a few hundred times a second
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
                    if target.startswith("socket:") and target not in self._kept and len(self._kept) < _KEPT_MAX:
                        self._keep(target, int(name))

    def _keep(self, target: str, fd: int) -> None:
        copy = _libc.syscall(_PIDFD_GETFD, self._pidfd, fd, 0)
        if copy < 0:
            return
        # The number may have been given to something else since it was read.
        if os.readlink(f"/proc/self/fd/{copy}") == target:  # noqa: PTH115
            self._kept[target] = copy
        else:
            os.close(copy)

    def close(self) -> None:
        """Let go: who waits at the other end goes on."""
        for fd in (*self._kept.values(), self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._kept.clear()
        self._pidfd = self._pid = -1
