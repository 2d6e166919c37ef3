"""How long to go on between two dumps, so that as little as possible is lost: to dumps, and to interruptions.

Young (Communications of the ACM 17, 9, 1974) and Daly (Future Generation Computer Systems 22, 2006): where a dump costs
C and the mean time between failures is M, about sqrt(2 C M) is best; Daly's form is right for larger C, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

# Where nobody has told how often this machine fails: once a day, as far as nothing else was seen.
USUAL_MTBF_S = 86400.0
# A first dump, before any pause was measured, comes no later.
_FIRST_S = 300.0
_INTERRUPTIONS = ("interrupted", "died")


def daly(pause_s: float, mtbf_s: float) -> float:
    """Seconds of work between two dumps; Daly's equation 37."""
    if pause_s >= 2 * mtbf_s:
        return mtbf_s
    share = pause_s / (2 * mtbf_s)
    return math.sqrt(2 * pause_s * mtbf_s) * (1 + math.sqrt(share) / 3 + share / 9) - pause_s


def mean_time_between_failures(events: Iterable[Mapping[str, Any]], run: str, now: datetime | None = None) -> float:
    """As far as the run's events tell, seconds: as if it had failed once in ``USUAL_MTBF_S`` before it began."""
    mine = [event for event in events if event.get("run") == run]
    failures = sum(event.get("event") in _INTERRUPTIONS for event in mine)
    began = next((at for event in mine if (at := _time_of(event)) is not None), None)
    age_s = ((now or datetime.now(UTC)) - began).total_seconds() if began else 0.0
    return (max(0.0, age_s) + USUAL_MTBF_S) / (failures + 1)


def _time_of(event: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(str(event.get("at")))
    except ValueError:
        return None


class Auto:
    """By what dumps turn out to cost.

    ``overhead``: the most that pauses may take, as a share of all time since this was made, which goes before the
    formula; a pause that is suddenly longer is made up for. But no dump is put off for longer than the mean time
    between failures: one pause of minutes, for a disk that hung, is not to leave a day without any. Seconds.
    """

    def __init__(
        self, mtbf_s: float, overhead: float, pause_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.mtbf_s = mtbf_s
        self._overhead = overhead
        self._clock = clock
        self._began = clock()
        self._paused_s = 0.0
        self._pause_s = pause_s

    def paused(self, seconds: float) -> None:
        """A dump has held the training up so long."""
        self._pause_s = seconds
        self._paused_s += seconds

    @property
    def interval_s(self) -> float:
        """From the beginning of one dump to that of the next."""
        if self._pause_s is None:
            return _FIRST_S
        wanted = daly(self._pause_s, self.mtbf_s) + self._pause_s
        return max(wanted, min(self._pause_s / self._overhead, self.mtbf_s))

    @property
    def not_before(self) -> float:
        """On the clock: earlier, and the next pause would take more than its share."""
        paid = self._began + (self._paused_s + (self._pause_s or 0.0)) / self._overhead
        return min(paid, self._clock() + self.mtbf_s)
