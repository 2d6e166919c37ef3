"""A helper as init's child: a program beside the training that prepares it for CRIU, and what undoes its work.

The supervisor asks for both; when it is gone, init sees to it that nothing stays prepared. Standard library only.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from criu_train.cell.channel import Channel
from criu_train.cell.launch import start_helper

_NEVER = float("inf")


class HelperChild:
    """One at a time. ``give_up``: what is to become of a training that can't be undone and waits for it for ever."""

    def __init__(self, channel: Channel, nice: int, give_up: Callable[[], None]) -> None:
        self._channel = channel
        self._nice = nice
        self._give_up = give_up
        self._said = ""
        self._limit_s = 0.0
        self._owed: list[str] | None = None  # the command line of what undoes what has been done
        self._undoing = False
        self.pid = 0
        self.deadline = _NEVER

    @property
    def busy(self) -> bool:
        """Whether something is prepared, or about to be."""
        return self.pid != 0 or self._owed is not None

    def run(self, message: dict[str, Any]) -> None:
        """See ``Cell.helper``. Raises OSError when no process can be had."""
        self._said, self._limit_s = message["said"], message["limit_s"]
        self._start(message["argv"], undo=message["undo"])

    def undo_alone(self) -> None:
        """There is no supervisor that would ask for it, and no CRIU any more. Raises OSError."""
        if self._owed is not None and not self.pid:
            self._start(self._owed, undo=None)

    def _start(self, argv: list[str], *, undo: list[str] | None) -> None:
        if self.pid:
            raise BlockingIOError(errno.EBUSY, "another helper is at work")
        self._undoing = undo is None
        self._owed = undo if undo is not None else self._owed
        # Whoever waits for it stands still, and must not lose it for want of memory.
        self.pid = start_helper(argv, self._nice, -900, self._said)
        self.deadline = time.monotonic() + self._limit_s

    def changed(self, status: int) -> None:
        """Take in what waitpid said."""
        if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
            return
        code = os.waitstatus_to_exitcode(status)
        self.pid, self.deadline = 0, _NEVER
        if self._undoing:
            self._owed = None
        self._channel.tell("helper_ended", code=code)
        if not self._channel.connected:
            if self._undoing and code != 0:
                self._give_up()
            self.undo_alone()

    def check(self) -> None:
        """Called now and then, and when ``deadline`` is reached."""
        if self.pid and time.monotonic() >= self.deadline:
            self.deadline = _NEVER
            os.kill(self.pid, signal.SIGKILL)
