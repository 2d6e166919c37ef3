"""What has happened in a run so far, counted from its events."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from criu_train.store.events import Event, time_of
from criu_train.store.layout import created_at_of

TRIGGERS = ("timer", "step", "epoch", "signal", "manual", "hook", "trial", "preempt")
# They are written when nothing lives, or just begins to.
_NO_SIGN_OF_LIFE = frozenset({"interrupted", "restore", "restored", "stopped", "not_proven", "proven"})


class Spread:
    """How long something took, each time, in seconds."""

    BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(self.BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        self.sum += seconds
        self._counts[bisect_left(self.BOUNDS, seconds)] += 1

    def up_to_each_bound(self) -> list[tuple[str, int]]:
        """How many took no longer than each bound; the last one is endless."""
        so_far, found = 0, []
        for bound, count in zip([*map(str, self.BOUNDS), "+Inf"], self._counts, strict=True):
            so_far += count
            found.append((bound, so_far))
        return found


@dataclass(frozen=True)
class LastSnapshot:
    """The newest snapshot; ``taken_at``: seconds since 1970."""

    taken_at: float
    step: int | None
    memory_bytes: int
    stored_bytes: int


class Tally:
    """Hears of events in their order; those of another run begin it anew. Events of older versions tell less.

    ``lost_steps`` and ``lost_seconds``: what was computed after a snapshot that was restored later, so that it had to
    be computed again; the seconds as far as signs of life tell them.
    """

    def __init__(self) -> None:
        self._begin(None)

    def _begin(self, run: str | None) -> None:
        self._run = run
        self.snapshots: Counter[str] = Counter(dict.fromkeys(TRIGGERS, 0))
        self.failures: Counter[str] = Counter(dict.fromkeys(TRIGGERS, 0))
        self.pauses, self.dumps, self.restores = Spread(), Spread(), Spread()
        self.added_bytes = 0
        self.last: LastSnapshot | None = None
        self.restarts = self.interruptions = 0
        self.lost_steps, self.lost_seconds = 0, 0.0
        self.exit_code: int | None = None
        self._step: int | None = None
        self._alive_at: float | None = None
        self._ended_at_the_cut = False  # with the last snapshot: what comes after it tells of no life

    def hear(self, event: Event) -> None:
        if (run := event.get("run")) is not None and run != self._run:
            self._begin(run)
        match event.get("event"):
            case "dumped":
                self._dumped(event)
            case "dump_failed":
                self.failures[str(event.get("trigger"))] += 1
            case "progress":
                self._step = event["step"]
            case "restored":
                self._restored(event)
            case "died":
                self.restarts += 1
            case "stood_still":
                self.restarts += event.get("next") is not None
            case "interrupted":
                self.interruptions += 1
            case "finished" | "gave_up":
                self.exit_code = event.get("exit_code")
        if event.get("event") not in _NO_SIGN_OF_LIFE and not self._ended_at_the_cut:
            self._alive_at = time_of(event)

    def _dumped(self, event: Event) -> None:
        trigger = str(event.get("trigger"))
        self.snapshots[trigger] += 1
        self.dumps.add(event.get("seconds") or 0.0)
        if (frozen_us := event.get("frozen_time_us")) is not None:
            self.pauses.add((frozen_us + (event.get("parked_us") or 0)) / 1e6)
        self.added_bytes += event.get("added_bytes") or 0
        taken_at = _taken_at(event["snapshot"])
        memory, stored = event.get("memory_bytes") or 0, event.get("stored_bytes") or 0
        self.last = LastSnapshot(taken_at, event.get("step"), memory, stored)
        if trigger == "preempt":
            self._ended_at_the_cut, self._alive_at, self._step = True, taken_at, event.get("step")

    def _restored(self, event: Event) -> None:
        self.restores.add(event.get("seconds") or 0.0)
        step = event.get("step")
        if step is not None and self._step is not None:
            self.lost_steps += max(0, self._step - step)
        if self._alive_at is not None:
            self.lost_seconds += max(0.0, self._alive_at - _taken_at(event["snapshot"]))
        self._step, self._alive_at, self._ended_at_the_cut = step, time_of(event), False
        self.exit_code = None


def _taken_at(snapshot: str) -> float:
    """Seconds since 1970, of a snapshot's id."""
    return datetime.fromisoformat(created_at_of(snapshot)).timestamp()
