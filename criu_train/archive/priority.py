"""How fast packing goes: behind the training's back as long as it may, at full speed when it is late."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path

from criu_train.errors import DumpFailedError

# Steps of niceness, from hardly noticeable to like everybody else. Each gives half as much again as the one before.
_STEPS = (*range(19, 0, -2), 0)
# In the background: late is who takes longer than this in all.
_BACKGROUND_S_PER_GIB, _BACKGROUND_LEAST_S = 15.0, 20.0
# All steps take half of that time, or they would be taken at once.
_LOOKS = 20
# Under a deadline: how often the speed is measured.
_LOOK_S = 0.5
# Levels of zstd, the best first, and how much faster than the best each is; after the last: no compression.
_LEVELS = {3: 1.0, 1: 2.0}
_BEST, _LAST = 3, 1
# Bytes a second that the best is taken to make until it was seen.
_GUESSED_RATE = 200 << 20
# Bytes a second that digests are taken at until it was seen, and that packs are written at.
_GUESSED_HASHING, _GUESSED_WRITING = 0.8e9, 0.8e9
# A projection must leave so much of the time that is left: the end has costs of its own.
_CAUTION = 0.8
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}.get(platform.machine())
_IO_IDLE, _IO_NORMAL = 3 << 13, 2 << 13 | 4
_IDLE_IO_ABOVE = 15  # who is late must not be starved by a busy disk
_AUTOGROUP = Path("/proc/self/autogroup")


class Pacer:
    """For one packing. ``raw_bytes`` to go through; ``deadline_s``: seconds that it may take, None: in the background.

    Threads are given back to normal priority by ending: niceness belongs to a thread.
    """

    def __init__(
        self, raw_bytes: int, deadline_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._raw = raw_bytes
        self._start = self._looked = clock()
        self._deadline = None if deadline_s is None else self._start + deadline_s
        self._threads: set[int] = set()
        self._lock = threading.Lock()
        self._step = 0 if deadline_s is None else len(_STEPS) - 1
        self._level: int | None = _BEST
        self._measured_from = (self._start, raw_bytes)
        self._rate = float(_GUESSED_RATE)
        self._hashing_from: tuple[float, int] | None = None
        self._stopped = False
        self._apply()

    def in_thread(self) -> None:
        """The calling thread works for this packing from now on."""
        with self._lock:
            self._threads.add(threading.get_native_id())
            self._apply()

    def level(self, raw_left: int, done: float) -> int | None:
        """As ``Pace`` says. Raises DumpFailedError when stopped."""
        with self._lock:
            if self._stopped:
                raise DumpFailedError("the packing was given up", tip="the next dump starts anew")
            now = self._clock()
            if self._deadline is None:
                self._in_background(now, done)
            else:
                self._against_deadline(now, raw_left, self._deadline)
            return self._level

    def hashing(self, raw_left: int) -> bool:
        """Whether the deadline leaves time for the digests of so many bytes and for writing as many."""
        with self._lock:
            if self._deadline is None:
                return True
            now = self._clock()
            began, left_then = self._hashing_from = self._hashing_from or (now, raw_left)
            measured = now - began >= _LOOK_S
            rate = (left_then - raw_left) / (now - began) if measured else _GUESSED_HASHING
            time_left = max(0.0, self._deadline - now) * _CAUTION
            return raw_left < rate * (time_left - self._raw / _GUESSED_WRITING)

    def hurry(self, seconds: float) -> None:
        """It has to be done within so many seconds from now."""
        with self._lock:
            self._deadline = self._clock() + seconds
            self._climb(len(_STEPS) - 1)

    def stop(self) -> None:
        """The result is not wanted any more."""
        self._stopped = True

    def end(self) -> None:
        """Packing is over: what is not a thread's own goes back to normal."""
        _set_autogroup(0)

    def _in_background(self, now: float, done: float) -> None:
        limit = max(_BACKGROUND_LEAST_S, _BACKGROUND_S_PER_GIB * self._raw / (1 << 30))
        if now - self._looked < limit / _LOOKS:
            return
        self._looked = now
        late = now - self._start > limit * done
        if late and self._step == len(_STEPS) - 1:
            self._level = _LAST
        elif late:
            self._climb(self._step + 1)

    def _against_deadline(self, now: float, raw_left: int, deadline: float) -> None:
        began, left_then = self._measured_from
        if raw_left >= left_then:  # nothing was written yet: looking for equal pages tells nothing about writing
            self._measured_from = now, raw_left
        elif self._level is not None and now - began >= _LOOK_S:
            self._rate = (left_then - raw_left) / (now - began) / _LEVELS[self._level]
            self._measured_from = (now, raw_left)
        time_left = max(0.0, deadline - now) * _CAUTION
        level = next((level for level, faster in _LEVELS.items() if raw_left < self._rate * faster * time_left), None)
        if level != self._level:
            self._level, self._measured_from = level, (now, raw_left)

    def _climb(self, step: int) -> None:
        self._step = step
        self._apply()

    def _apply(self) -> None:
        nice = _STEPS[self._step]
        _set_autogroup(nice)
        for thread in tuple(self._threads):
            try:
                os.setpriority(os.PRIO_PROCESS, thread, nice)
            except ProcessLookupError:
                self._threads.discard(thread)
            except PermissionError:  # without CAP_SYS_NICE there is no way back up
                pass
            _set_io(thread, _IO_IDLE if nice > _IDLE_IO_ABOVE else _IO_NORMAL)


def _set_io(thread: int, priority: int) -> None:
    if _IOPRIO_SET is not None:
        ctypes.CDLL(None).syscall(_IOPRIO_SET, 1, thread, priority)


def _set_autogroup(nice: int) -> None:
    """Where the kernel groups processes by session, niceness counts within the group only; so give it to the group."""
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(nice), encoding="ascii")
