"""When the next dump begins by itself, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Schedule:
    """Durations in seconds, on a clock that never goes back; ``due`` is None where no dump comes by itself.

    ``every``: the interval of the timer, None for no timer. ``trial_after``: how soon to find out whether dumps of this
    training work at all, None not to try; a timer that comes sooner finds out as well. ``left``: what is left of an
    interval that began under another supervisor; the first dump comes no later.
    """

    def __init__(
        self,
        every: float | None,
        trial_after: float | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        left: float | None = None,
    ) -> None:
        self._every = every
        self._clock = clock
        self.trigger = "timer"
        self.due = None if every is None else clock() + min(every, math.inf if left is None else left)
        if trial_after is not None and (every is None or trial_after < every):
            self.trigger, self.due = "trial", clock() + trial_after

    @property
    def left(self) -> float | None:
        """Seconds until the next one."""
        return None if self.due is None else max(0.0, self.due - self._clock())

    def dumped(self, began: float) -> None:
        """A dump, whatever its trigger, began then and is over: the next one begins an interval after it began.

        One that took long, in the background too, leaves half an interval in between.
        """
        self.trigger = "timer"
        self.due = None if self._every is None else max(began + self._every, self._clock() + self._every / 2)
