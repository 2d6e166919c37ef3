"""By what the progress of a training is counted: what of it only goes up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from criu_train.progress.line import Told
from criu_train.report.events import Event
from criu_train.report.story import Counter, Sample


def counter_of(events: Sequence[Event]) -> Counter | None:
    """Steps, or epochs where steps begin again with each epoch or are not told."""
    # A snapshot is told of after what came later than its cut.
    telling = "progress" if any(one.kind == "progress" for one in events) else "dumped"
    lives: list[list[Told]] = [[]]
    for event in events:
        if event.kind == "restored":
            lives.append([])
        elif event.kind == telling:
            lives[-1].append(event.told)
    names: tuple[Counter, ...] = ("step", "epoch")
    for name in names:
        rows = [[number for one in life if (number := at(one, name)) is not None] for life in lives]
        if any(rows) and all(a <= b for row in rows for a, b in pairwise(row)):
            return name
    return None


def at(told: Told, counter: Counter | None) -> float | None:
    """How far that is, as ``counter`` counts."""
    return told.step if counter == "step" else told.epoch if counter == "epoch" else None


def time_of_cut(told: Told, begin: float, end: float, life: Iterable[Sample], counter: Counter | None) -> float:
    """When a snapshot was cut of which only is known that it was begun and ready then: ``begin`` and ``end``.

    Its progress lies between two samples, and so does its cut. ``life``: what was told since the last restore, newest
    first.
    """
    reached = at(told, counter)
    later: tuple[float, float] | None = None
    for one in life:
        if reached is None or (was := at(one.told, counter)) is None:
            continue
        if was <= reached:
            t = one.t if later is None else one.t + (later[0] - one.t) * (reached - was) / (later[1] - was)
            return min(max(t, begin), end)
        later = one.t, was
    return begin
