"""The journal as a file: whole lines, a sign of life, and a full disk survived. Standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

_OVERFLOW = '{"what":["overflow"]}'


class JournalFile:
    """``offset``: bytes written so far. Only opening raises OSError."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._broken = False
        self.offset = 0

    def write(self, lines: Sequence[str]) -> bool:
        """Append the lines. False when they are lost: then an overflow is told as soon as writing works again."""
        if self._broken:
            lines = ["", _OVERFLOW, *lines]
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            while data:
                written = os.write(self._fd, data)
                self.offset += written
                data = data[written:]
            self._broken = False
        except OSError:
            # A full disk must not end init. What is lost is told by the files' change times.
            self._broken = True
        return not self._broken

    def write_overflow(self) -> None:
        """Something went unnoticed."""
        self.write([_OVERFLOW])

    def heartbeat(self) -> None:
        """The cell is alive now."""
        with contextlib.suppress(OSError):
            os.utime(self._fd)
        self.write([])

    def fileno(self) -> int:
        """The open file."""
        return self._fd

    def close(self) -> None:
        """No more is written."""
        os.close(self._fd)
