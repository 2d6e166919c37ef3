"""One CRIU as init's child: its time limit, its action script's two FIFOs, and its end when it must be killed.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from criu_train.cell.last_stop import go_on, status_at_exit, trace_exit
from criu_train.cell.launch import start_helper

# A stopped CRIU keeps the tree frozen; whoever stopped it by hand has this long before it is told to go on.
_STOPPED_GRACE_S = 1.0
# What CRIU gets to fail by itself after a "no", and what the kernel gets to end it after SIGKILL.
_FAILING_S, _DYING_S = 1.0, 10.0
# What CRIU logs last of all when it has failed and put everything right again (cr_dump_finish in criu/cr-dump.c).
_LAST_WORD, _TAIL_BYTES = b"Dumping FAILED.", 4096


class CriuChild:
    """``hook``: the directory with the FIFOs ``ask`` and ``answer``, None where nothing is asked.

    ``hold`` gets its PID when it breaks off in the middle of its work; where it is traced, before anything of it is
    gone. It must not raise. Raises OSError when the FIFOs can't be opened.
    """

    def __init__(self, limit_s: float, hook: str | None, hold: Callable[[int], object]) -> None:
        self.pid = 0
        self.deadline = time.monotonic() + limit_s
        self.timed_out = False
        self.was_stopped = False
        self._log = ""
        self._hold = hold
        self._traced = False
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
        self._traced = self.ask_fd >= 0 and trace_exit(self.pid)

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
            self._stopped(status)
            return None
        if os.WIFCONTINUED(status):
            self._stopped_at = None
            return None
        broke_off = self._breaks_off(status)
        if broke_off:  # again: they may have had children, and not everywhere may we trace
            self._hold(self.pid)
        with contextlib.suppress(OSError):  # action scripts that a dead CRIU has left
            os.killpg(self.pid, signal.SIGKILL)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "timed_out": self.timed_out,
            "was_stopped": self.was_stopped,
            "broke_off": broke_off,
        }

    def _stopped(self, status: int) -> None:
        stands = not self._traced
        if self._traced:
            with contextlib.suppress(ProcessLookupError):  # killed since: another stop is to come
                end = status_at_exit(self.pid, status)
                if end is not None and self._breaks_off(end):
                    self._hold(self.pid)
                stands = go_on(self.pid, status)
        if not stands:
            self._stopped_at = None
        elif self._stopped_at is None:
            self._stopped_at, self.was_stopped = time.monotonic(), True

    def _breaks_off(self, status: int) -> bool:
        """Whether an end with this status comes in the middle of its work."""
        code = os.waitstatus_to_exitcode(status)
        return code < 0 or (code > 0 and self.ask_fd >= 0 and not self._failed_in_order())

    def _failed_in_order(self) -> bool:
        """Else it left in the middle: it does when a task that it works on is killed or stopped by others."""
        with contextlib.suppress(OSError), open(self._log, "rb") as file:  # noqa: PTH123
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return _LAST_WORD in file.read()
        return False

    def check(self) -> None:
        """Called now and then, and when ``deadline`` is reached."""
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
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the FIFOs."""
        for fd in (self.ask_fd, self._answer_fd):
            if fd >= 0:
                os.close(fd)
        self.ask_fd = self._answer_fd = -1
