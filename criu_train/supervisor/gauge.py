"""What is known of the training's progress now, and how fast it makes its steps."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from criu_train.progress.following import Following
from criu_train.progress.line import NOTHING, Told

# The speed is that of so long; a training that takes longer for a step is measured by its last one.
_WINDOW_S = 60.0
# A training whose next step is overdue by so much makes none any more.
_OVERDUE = 3.0


class Gauge:
    """``overlay``: what else tells of the progress, laid over what the output tells. ``clock``: seconds, never back."""

    def __init__(
        self,
        output: Path,
        pattern: re.Pattern[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        overlay: Callable[[], Told] = lambda: NOTHING,
    ) -> None:
        self._following = Following(output, pattern)
        self._clock = clock
        self._overlay = overlay
        self._steps: deque[tuple[float, int]] = deque()  # when each step was first seen
        self.told = NOTHING

    def begin_anew(self) -> None:
        """The training lives another life, its output may have been cut."""
        self._following.begin_anew()
        self._steps.clear()
        self.told = NOTHING

    def update(self) -> None:
        """Take in what is new; costs some microseconds where nothing is."""
        self.told = self._following.update().then(self._overlay())
        step = self.told.step
        if step is None or (self._steps and step == self._steps[-1][1]):
            return
        if self._steps and step < self._steps[-1][1]:  # a new epoch that counts from the beginning, or another life
            self._steps.clear()
        now = self._clock()
        self._steps.append((now, step))
        while len(self._steps) > 2 and self._steps[1][0] <= now - _WINDOW_S:
            self._steps.popleft()

    @property
    def steps_per_second(self) -> float | None:
        """Over the last minute; None before two steps are known, 0 once the next one is long overdue."""
        steps = tuple(self._steps)  # at once: others ask from threads of their own
        if len(steps) < 2:
            return None
        (began, first), (ended, last) = steps[0], steps[-1]
        usual_s = (ended - began) / (len(steps) - 1)
        if self._clock() - ended > max(_WINDOW_S, _OVERDUE * usual_s):
            return 0.0
        return (last - first) / (ended - began) if ended > began else None
