"""Who is held: a CRIU that must be killed leaves connections taken apart, and tasks stand until these are mended.

Init holds everybody in the cell, also those whom the supervisor does not know of, and lets exactly these go on: when
the supervisor says so, when it is gone, or when it has not said so for a while. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple

# How long the supervisor has to mend what a killed CRIU left.
_MENDING_S = 10.0
# A task may fork while the others are being stopped; its child is found in the next round.
_ROUNDS = 5
_TGKILL = 234  # x86-64

_libc = ctypes.CDLL(None, use_errno=True)


class _Task(NamedTuple):
    """A PID together with its start time (clock ticks): never a later process of the same number."""

    pid: int
    started: int


class Held:
    """Tasks that init has stopped, and when they go on without anybody saying so."""

    def __init__(self) -> None:
        self._stopped_before: frozenset[_Task] = frozenset()
        self._tasks: set[_Task] = set()
        self._until = float("inf")

    def note_stopped(self) -> None:
        """Call before CRIU starts: who is stopped now is so on somebody's wish and stays so."""
        self._stopped_before = frozenset(task for task, state, _ in _tasks() if state == b"T")

    def hold(self, criu_pid: int) -> None:
        """Stop everybody in the cell but init, CRIU and its scripts."""
        for _ in range(_ROUNDS):
            new = {task for task, _, session in _tasks() if session != criu_pid}
            new -= self._tasks | self._stopped_before
            if not new:
                break
            for task in new:
                _stop(task)
            self._tasks |= new
        self.count_down()

    def count_down(self) -> None:
        """From now on the supervisor has its time to mend."""
        self._until = time.monotonic() + _MENDING_S

    def check(self) -> None:
        """Called now and then."""
        if self._tasks and time.monotonic() > self._until:
            self.release()

    def release(self) -> None:
        """Let everybody go on whom we have stopped."""
        tasks, self._tasks = self._tasks, set()
        present = {task for task, _, _ in _tasks()}
        for task in tasks & present:
            with contextlib.suppress(OSError):
                os.kill(task.pid, signal.SIGCONT)


def _stop(task: _Task) -> None:
    """Each thread gets a SIGSTOP of its own, which nobody else can take in: whichever CRIU lets go first stops."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{task.pid}/task"):  # noqa: PTH208
            _libc.syscall(_TGKILL, task.pid, int(thread), signal.SIGSTOP)


def _tasks() -> Iterator[tuple[_Task, bytes, int]]:
    """Everybody in the cell but init: the task, its state, its session."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - no pathlib in the smallest PID 1
        if not name.isdecimal() or name == "1":
            continue
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
            yield _Task(int(name), int(fields[19])), fields[0], int(fields[3])
