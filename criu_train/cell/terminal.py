"""The training's pseudo-terminal. Init holds the master, and what comes out of it is appended to output.log.

CRIU knows the slave by its device numbers and leaves it to us (``--external``, ``--inherit-fd`` with ``key``): a
restored training gets a new terminal, with the settings and the size of the old one. Nothing is ever typed into it.
Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios

_READ_BYTES = 64 * 1024
# Far more than a terminal holds; who left the tree is not frozen with it, and may go on writing for ever.
_DRAIN_READS = 64


class Terminal:
    """``slave`` stays open here, so that a training that closes and reopens it does not hang it up.

    ``owner``: user and group of the training, None for our own. Raises OSError.
    """

    def __init__(self, output: str, rows: int, columns: int, owner: tuple[int, int] | None = None) -> None:
        self._output = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._pending = b""
        try:
            self._master, self.slave = os.openpty()
        except BaseException:
            os.close(self._output)
            raise
        os.set_blocking(self._master, False)
        settings = termios.tcgetattr(self.slave)
        settings[1] &= ~termios.ONLCR  # lines end in the log as they end in a file
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(self.slave, termios.TCSANOW, settings)
        self.resize(rows, columns)
        if owner is not None:
            os.fchown(self.slave, *owner)
        status = os.fstat(self.slave)
        self.key = f"tty[{status.st_rdev:x}:{status.st_dev:x}]"

    def fileno(self) -> int:
        """Readable when there is something to ``pump``."""
        return self._master

    def pump(self) -> bool:
        """Take out some of what is there, False for nothing. Raises OSError when that can't be written: it is kept."""
        if not self._pending:
            with contextlib.suppress(BlockingIOError):
                self._pending = os.read(self._master, _READ_BYTES)
        some = bool(self._pending)
        while self._pending:
            self._pending = self._pending[os.write(self._output, self._pending) :]
        return some

    def drain(self) -> None:
        """Everything that was written up to now; the training stands still, or has ended. Raises OSError.

        Reading takes along what is still on its way through the kernel (``n_tty_read``).
        """
        for _ in range(_DRAIN_READS):
            if not self.pump():
                return

    def resize(self, rows: int, columns: int) -> None:
        """The training's foreground processes get SIGWINCH when that changes anything."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
