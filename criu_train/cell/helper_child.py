"""A helper as init's child: a program beside the training that prepares it for CRIU, and what undoes its work.

Standard library only.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from criu_train.cell.launch import start_helper


class HelperChild:
    """One at a time. ``owed``: the command line of what has to be run yet, whoever is still there to ask for it."""

    def __init__(self, nice: int) -> None:
        self._nice = nice
        self._said = ""
        self._limit_s = 0.0
        self._undoing = False
        self.stuck = False  # what was to be undone can't be: whoever waits for it would wait for ever
        self.pid = 0
        self.deadline = float("inf")
        self.owed: list[str] | None = None

    def start(self, argv: list[str], said: str, limit_s: float, undo: list[str] | None) -> None:
        """``said``: where its output goes. ``undo``: None for a helper that itself undoes what another has done.

        Raises OSError when no process can be had.
        """
        self._said, self._limit_s = said, limit_s
        if undo is not None:
            self.owed = undo
        self._undoing = undo is None
        # Whoever waits for it stands still, and must not lose it for want of memory.
        self.pid = start_helper(argv, self._nice, -900, said)
        self.deadline = time.monotonic() + limit_s

    def start_owed(self) -> bool:
        """Undo what is still to be undone, if anything is. Raises OSError."""
        if self.owed is None or self.pid:
            return False
        self.start(self.owed, self._said, self._limit_s, None)
        return True

    def ended(self, status: int) -> dict[str, Any]:
        """It has ended so, by what waitpid said."""
        code = os.waitstatus_to_exitcode(status)
        self.pid, self.deadline = 0, float("inf")
        if self._undoing:
            self.owed, self.stuck = None, code != 0
        return {"code": code}

    def check(self) -> None:
        """Called now and then, and when ``deadline`` is reached."""
        if self.pid and time.monotonic() >= self.deadline:
            self.deadline = float("inf")
            os.kill(self.pid, signal.SIGKILL)
