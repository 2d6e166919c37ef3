"""A terminal of its own for a command: as wide as asked for, and somebody who types into it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness import environment

ESCAPES = re.compile(r"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78A-Z])")


def surroundings(**more: str) -> dict[str, str]:
    """Of a terminal that has colours; what is compiled is kept, since these tests start many programs."""
    unwanted = (
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "FORCE_COLOR",
        "COLORTERM",
        "PYTHONDONTWRITEBYTECODE",
        "CRIU_TRAIN_WARMUP",
    )
    kept = {name: value for name, value in environment().items() if name not in unwanted}
    return kept | {"TERM": "xterm", **more}


class Terminal:
    """Runs ``argv`` on a pseudo-terminal; use it as a context, which ends the command."""

    def __init__(
        self, argv: Sequence[str], *, columns: int = 80, rows: int = 40, env: Mapping[str, str], cwd: Path
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=dict(env), cwd=cwd, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )  # fmt: skip
        os.close(slave)
        self.raw = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """What came out, without colours and movements."""
        return ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read_until(self, pattern: str, deadline_s: float = 20.0) -> None:
        """Until what has come out matches; AssertionError when it doesn't in time."""
        end = time.monotonic() + deadline_s
        while not re.search(pattern, self.text):
            assert self._read(end), f"no {pattern!r} in {self.text!r}"

    def read_while(self, condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
        """Take in what comes out while the condition holds, but not for ever."""
        end = time.monotonic() + deadline_s
        while condition() and time.monotonic() < end:
            self._read(min(end, time.monotonic() + 0.05))

    def read_all(self, deadline_s: float = 30.0) -> int:
        """Until the command has ended; its exit code."""
        end = time.monotonic() + deadline_s
        while self._read(end):
            pass
        return self.process.wait(max(0.1, end - time.monotonic()))

    def _read(self, end: float) -> bool:
        while (left := end - time.monotonic()) > 0:
            if select.select([self._master], [], [], min(left, 0.1))[0]:
                try:
                    piece = os.read(self._master, 65536)
                except OSError:  # the command was the last to have it open
                    return False
                self.raw += piece.decode(errors="replace")
                # What a shell asks its terminal for at its start, it waits for.
                if "\x1b[c" in piece.decode(errors="replace"):
                    self.type("\x1b[?62c")
                return bool(piece)
        return False
