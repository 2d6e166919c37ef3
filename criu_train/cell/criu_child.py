"""One CRIU as init's child: its time limit, its action script's two FIFOs, and who is held when it must be killed.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

# A stopped CRIU keeps the tree frozen; whoever stopped it by hand has this long before it is told to go on.
_STOPPED_GRACE_S = 1.0
# What CRIU gets to fail by itself after a "no", and what the kernel gets to end it after SIGKILL.
_FAILING_S, _DYING_S = 1.0, 10.0


class CriuChild:
    """``hook``: the directory with the FIFOs ``ask`` and ``answer``, None where nothing is asked."""

    def __init__(self, pid: int, limit_s: float, hook: str | None) -> None:
        self.pid = pid
        self.deadline = time.monotonic() + limit_s
        self.timed_out = False
        self.was_stopped = False
        self.ask_fd = self._answer_fd = -1
        self._stopped_at: float | None = None
        if hook is not None:
            # Read-write, so that neither opening nor reading ever blocks us or sees an end of file.
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
            self.ask_fd = os.open(f"{hook}/ask", flags)
            self._answer_fd = os.open(f"{hook}/answer", flags)

    def take_question(self) -> None:
        """The action script has written to ``ask_fd``."""
        os.read(self.ask_fd, 64)

    def answer(self, go: bool) -> None:
        """Let the action script succeed, or fail and the dump with it."""
        if self._answer_fd >= 0:
            os.write(self._answer_fd, b"go\n" if go else b"no\n")

    def changed(self, status: int) -> dict[str, Any] | None:
        """Take in what waitpid said; returns how it ended once it has."""
        if os.WIFSTOPPED(status):
            self._stopped_at, self.was_stopped = time.monotonic(), True
            return None
        if os.WIFCONTINUED(status):
            self._stopped_at = None
            return None
        self._close()
        return {
            "code": os.waitstatus_to_exitcode(status),
            "timed_out": self.timed_out,
            "was_stopped": self.was_stopped,
        }

    def check(self) -> None:
        """Called now and then, and when ``deadline`` is reached."""
        now = time.monotonic()
        if self._stopped_at is not None and now > self._stopped_at + _STOPPED_GRACE_S:
            self._stopped_at = None
            os.kill(self.pid, signal.SIGCONT)
        if now < self.deadline:
            return
        if not self.timed_out and self.ask_fd >= 0:
            # First let CRIU fail by itself, which cleans up; it only can where it waits for our answer.
            self.answer(False)
            self.deadline = now + _FAILING_S
        else:
            # Without CRIU the tasks would run on with connections it has taken apart; the supervisor mends these and
            # lets the tasks go on.
            self.signal_tree(signal.SIGSTOP)
            os.kill(self.pid, signal.SIGKILL)
            self.deadline = now + _DYING_S
        self.timed_out = True

    def signal_tree(self, number: signal.Signals) -> None:
        """To everybody in the cell but init, CRIU and its scripts."""
        for name in os.listdir("/proc"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if name.isdecimal() and int(name) != 1 and os.getsid(int(name)) != self.pid:
                    os.kill(int(name), number)

    def _close(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # action scripts that a dead CRIU has left
            os.killpg(self.pid, signal.SIGKILL)
        for fd in (self.ask_fd, self._answer_fd):
            if fd >= 0:
                os.close(fd)
        self.ask_fd = self._answer_fd = -1
