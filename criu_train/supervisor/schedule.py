"""When the next dump begins by itself, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from criu_train.progress.line import NOTHING, Told
from criu_train.supervisor.interval import Auto
from criu_train.supervisor.milestones import Milestones

# Between two looks at how far the training is, where that decides.
_LOOK_S = 0.25


class Schedule:
    """Durations in seconds, on a clock that never goes back; ``due`` is None where no dump comes by itself.

    ``every``: the interval of the timer, or what finds it out; None for no timer. ``trial_after``: how soon to find out
    whether dumps of this training work at all, None not to try; a timer that comes sooner finds out as well. ``left``:
    what is left of an interval that began under another supervisor; the first dump comes no later. ``told``: how far
    the training is now.
    """

    def __init__(
        self,
        every: float | Auto | None,
        trial_after: float | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        left: float | None = None,
        milestones: Milestones | None = None,
        told: Callable[[], Told] = lambda: NOTHING,
    ) -> None:
        self._every = every
        self._clock = clock
        self._milestones = milestones or Milestones(None, None)
        self._told = told
        self.trigger = "timer"
        first = self._interval
        self.due = None if first is None else clock() + min(first, math.inf if left is None else left)
        if trial_after is not None and (first is None or trial_after < first):
            self.trigger, self.due = "trial", clock() + trial_after

    @property
    def left(self) -> float | None:
        """Seconds until the next one."""
        return None if self.due is None else max(0.0, self.due - self._clock())

    @property
    def pause_s(self) -> float | None:
        """How long to wait before asking again what is due; None where nothing ever is."""
        looks = _LOOK_S if self._milestones.wanted else None
        return min((one for one in (self.left, looks) if one is not None), default=None)

    def due_now(self) -> str | None:
        """The trigger of the dump that is due."""
        if self.left == 0.0:
            return self.trigger
        return self._milestones.due(self._told())

    def dumped(self, began: float, told: Told | None = None, pause_s: float | None = None) -> None:
        """A dump, whatever its trigger, began then and is over: the next one begins an interval after it began.

        One that took long, in the background too, leaves half an interval in between. ``told``: how far the training
        was, and ``pause_s``: how long it was held up; None where it failed.
        """
        self._milestones.dumped(self._told() if told is None else told)
        self.trigger = "timer"
        if isinstance(self._every, Auto) and pause_s is not None:
            self._every.paused(pause_s)
        interval = self._interval
        self.due = None if interval is None else max(began + interval, self._clock() + interval / 2)
        if self.due is not None and isinstance(self._every, Auto):
            self.due = max(self.due, self._every.not_before)

    @property
    def _interval(self) -> float | None:
        return self._every.interval_s if isinstance(self._every, Auto) else self._every
