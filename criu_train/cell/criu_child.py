"""One CRIU as init's child: its time limit, its action script's two FIFOs, and its end when it must be killed.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from criu_train.cell.hold import Held
from criu_train.cell.launch import start_helper

# A stopped CRIU keeps the tree frozen; whoever stopped it by hand has this long before it is told to go on.
_STOPPED_GRACE_S = 1.0
# What CRIU gets to fail by itself after a "no", and what the kernel gets to end it after SIGKILL.
_FAILING_S, _DYING_S = 1.0, 10.0
# What CRIU logs last of all when it has failed and put everything right again (cr_dump_finish in criu/cr-dump.c).
_LAST_WORD, _TAIL_BYTES = b"Dumping FAILED.", 4096


class CriuChild:
    """``hook``: the directory with the FIFOs ``ask`` and ``answer``, None where nothing is asked.

    Raises OSError when these can't be opened.
    """

    def __init__(self, limit_s: float, hook: str | None) -> None:
        self.pid = 0
        self.deadline = time.monotonic() + limit_s
        self.timed_out = False
        self.was_stopped = False
        self._killed = False
        self._log = ""
        self.ask_fd = self._answer_fd = -1
        self._stopped_at: float | None = None
        if hook is not None:
            # Read-write, so that neither opening nor reading ever blocks us or sees an end of file.
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                self.ask_fd = os.open(f"{hook}/ask", flags)
                self._answer_fd = os.open(f"{hook}/answer", flags)
            except OSError:
                self.close()
                raise

    def start(self, argv: list[str], nice: int, stderr: str, keep: int = -1) -> None:
        """``stderr``: its log. ``keep``: a descriptor for it. Raises OSError when no process can be had."""
        self._log = stderr
        # A dump killed for want of memory can take the tree along. A restore must run at 0: a saved 0 is not set again.
        oom_score_adj = -900 if self.ask_fd >= 0 else 0
        self.pid = start_helper(argv, nice, oom_score_adj, stderr, keep)

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
        with contextlib.suppress(OSError):  # action scripts that a dead CRIU has left
            os.killpg(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        if self._killed and code > 0:
            # It saw its tasks being held, and left just before the SIGKILL that they were held for.
            code = -signal.SIGKILL
        return {
            "code": code,
            "timed_out": self.timed_out,
            "was_stopped": self.was_stopped,
            "broke_off": code < 0 or (code > 0 and self.ask_fd >= 0 and not self._failed_in_order()),
        }

    def _failed_in_order(self) -> bool:
        """Else it left in the middle: it does when a task that it works on is killed or stopped by others."""
        with contextlib.suppress(OSError), open(self._log, "rb") as file:  # noqa: PTH123
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return _LAST_WORD in file.read()
        return False

    def check(self, held: Held) -> None:
        """Called now and then, and when ``deadline`` is reached. ``held`` is who stands while CRIU is killed."""
        now = time.monotonic()
        if self._stopped_at is not None and now > self._stopped_at + _STOPPED_GRACE_S:
            self._stopped_at = None
            os.kill(self.pid, signal.SIGCONT)
        if now < self.deadline:
            return
        asked = self.timed_out
        self.timed_out = True
        if not asked and self.ask_fd >= 0:
            # First let CRIU fail by itself, which cleans up; it only can where it waits for our answer.
            self.deadline = now + _FAILING_S
            self.answer(False)
            return
        self.deadline = now + _DYING_S
        if not self._killed:
            # Without CRIU the tasks would run on with connections it has taken apart; the supervisor mends these.
            self._killed = True
            held.hold(self.pid)
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the FIFOs."""
        for fd in (self.ask_fd, self._answer_fd):
            if fd >= 0:
                os.close(fd)
        self.ask_fd = self._answer_fd = -1
