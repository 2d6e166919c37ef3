"""What happened in a run, in its order: lives, snapshots, interruptions, and what had to be done again.

All times are seconds since the run began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from criu_train.progress.line import NOTHING, Told

State = Literal["going on", "finished", "stopped", "gave up", "interrupted"]
Counter = Literal["step", "epoch"]


@dataclass(frozen=True)
class Sample:
    """How far the training was at a time. ``redone``: an interruption undid it, so that it had to be done again."""

    t: float
    told: Told
    redone: bool = False


@dataclass(frozen=True)
class Taken:
    """A snapshot as of its cut. What nobody counted is None.

    ``pause_s``: how long the training stood still and then went on; None also where it was ended at the cut.
    ``stored_bytes``: the size of the snapshot by itself; ``added_bytes``: what of it no earlier snapshot had.
    """

    id: str
    t: float
    trigger: str
    told: Told
    pause_s: float | None
    seconds: float | None
    memory_bytes: int | None
    stored_bytes: int | None
    added_bytes: int | None
    tasks: int | None


@dataclass(frozen=True)
class Failed:
    """A dump that failed."""

    t: float
    trigger: str
    reason: str


@dataclass(frozen=True)
class Interruption:
    """From the last sign of life to the restore that the run went on with.

    ``snapshot``: what was restored; ``passed_over``: snapshots that could not be, with the reason of each.
    ``before`` and ``after``: how far the training was, as its interruption and its restore found it.
    ``lost_s``: training whose result was undone; ``lost_steps``: steps of it, None where they can't be counted.
    """

    t: float
    restored_t: float
    cause: str
    snapshot: str
    passed_over: Sequence[tuple[str, str]]
    before: Told
    after: Told
    lost_s: float
    lost_steps: int | None

    @property
    def downtime_s(self) -> float:
        """From the last sign of life to the restore."""
        return self.restored_t - self.t


@dataclass(frozen=True)
class Story:
    """``counter``: what of the progress goes up without a break, if anything does.

    ``began_at``: seconds since 1970; ``wall_s``: from there to the last event. ``spans``: when the training lived.
    ``notes``: what the reader should know about the numbers, in sentences.
    """

    run: str
    command: Sequence[str]
    began_at: float
    wall_s: float
    state: State
    exit_code: int | None
    counter: Counter | None
    spans: Sequence[tuple[float, float]]
    samples: Sequence[Sample]
    snapshots: Sequence[Taken]
    interruptions: Sequence[Interruption]
    failed: Sequence[Failed]
    last: Told = NOTHING
    notes: Sequence[str] = ()
    kept: frozenset[str] = frozenset()  # ids of the snapshots that are still in the store
