"""Whether a training that dies again and again gets anywhere.

Measured in time lived since the cold start, as far as this supervisor knows it: a snapshot remembers how old the
training was at its cut. A crash that comes back at the same age is the same crash, however many snapshots were taken
on the way to it.
"""

from __future__ import annotations

from criu_train.supervisor.beginning import Life
from criu_train.supervisor.watching import Outcome

# Two lives that end at the same step differ by their pauses and by how busy the machine was, since the snapshot that
# both have gone on from.
_NOISE_S, _NOISE_SHARE = 2.0, 0.05


class Progress:
    """Ages in seconds. A snapshot from before this supervisor counts as age 0."""

    def __init__(self) -> None:
        self._age_at: dict[str, float] = {}
        self._oldest = 0.0

    def made(self, life: Life, outcome: Outcome) -> bool:
        """Whether this life took a snapshot and got further than any before it."""
        base = self._age_at.get(life.snapshot.id, 0.0) if life.snapshot else 0.0
        for snapshot, seconds in outcome.snapshots:
            self._age_at[snapshot] = base + seconds
        age = base + outcome.lived_s
        further = age > self._oldest + _NOISE_SHARE * outcome.lived_s + _NOISE_S
        self._oldest = max(self._oldest, age)
        return bool(outcome.snapshots) and further
