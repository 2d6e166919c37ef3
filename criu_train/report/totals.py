"""The numbers of a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from criu_train.report.story import Story


@dataclass(frozen=True)
class Totals:
    """Times in seconds, shares of 1. What cannot be told is None.

    ``wall_s`` = ``useful_s`` + ``pauses_total_s`` + ``lost_s`` + ``downtime_s``.
    ``memory_bytes`` and ``added_bytes``: over those snapshots of which both are known.
    """

    wall_s: float
    useful_s: float
    useful_share: float | None
    interruptions: int
    downtime_s: float
    downtime_share: float | None
    lost_s: float
    lost_share: float | None
    lost_steps: int | None
    snapshots: int
    snapshots_kept: int
    dumps_failed: int
    pauses_total_s: float
    pause_median_s: float | None
    pause_max_s: float | None
    overhead_share: float | None
    memory_bytes: int | None
    added_bytes: int | None
    saved_bytes: int | None
    saved_share: float | None
    step: int | None
    epoch: float | None


def add_up(story: Story) -> Totals:
    """Everything there is to count in a run."""
    pauses = [one.pause_s for one in story.snapshots if one.pause_s is not None]
    downtime_s = _gaps(story.spans, story.wall_s)
    lost_s = sum(one.lost_s for one in story.interruptions)
    useful_s = max(0.0, story.wall_s - downtime_s - lost_s - sum(pauses))
    sizes = [
        (one.memory_bytes, one.added_bytes)
        for one in story.snapshots
        if one.memory_bytes is not None and one.added_bytes is not None
    ]
    memory, added = (sum(of) for of in zip(*sizes, strict=True)) if sizes else (None, None)
    saved = memory - added if memory is not None and added is not None else None
    return Totals(
        wall_s=story.wall_s,
        useful_s=useful_s,
        useful_share=_share(useful_s, story.wall_s),
        interruptions=len(story.interruptions),
        downtime_s=downtime_s,
        downtime_share=_share(downtime_s, story.wall_s),
        lost_s=lost_s,
        lost_share=_share(lost_s, story.wall_s),
        lost_steps=_sum(one.lost_steps for one in story.interruptions),
        snapshots=len(story.snapshots),
        snapshots_kept=sum(one.id in story.kept for one in story.snapshots),
        dumps_failed=len(story.failed),
        pauses_total_s=sum(pauses),
        pause_median_s=median(pauses) if pauses else None,
        pause_max_s=max(pauses, default=None),
        overhead_share=_share(sum(pauses), story.wall_s),
        memory_bytes=memory,
        added_bytes=added,
        saved_bytes=saved,
        saved_share=_share(saved, memory) if saved is not None and memory is not None else None,
        step=story.last.step,
        epoch=story.last.epoch,
    )


def _gaps(spans: Sequence[tuple[float, float]], wall_s: float) -> float:
    return max(0.0, wall_s - sum(end - begin for begin, end in spans))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _sum(counts: Iterable[int | None]) -> int | None:
    """None where one of them is not known."""
    known = list(counts)
    return None if any(one is None for one in known) else sum(one for one in known if one is not None)
