"""What the charts of a report are drawn from, as JSON; drawn by assets/report.js."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

from criu_train.report.counting import at
from criu_train.report.story import Sample, Story, Taken
from criu_train.report.words import duration
from criu_train.store.layout import sequence_of

_T = TypeVar("_T")
# More points than this no screen shows, and a page of tens of megabytes nobody opens.
_MOST_POINTS = 3000
_MOST_METRICS = 60
_TIMES = ((3 * 86400, 86400, "days"), (3 * 3600, 3600, "hours"), (180, 60, "minutes"))
_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def chart_data(story: Story) -> dict[str, Any]:
    """Axes with their units, and the numbers in these units."""
    time_scale, time_unit = next(
        ((size, unit) for limit, size, unit in _TIMES if story.wall_s >= limit), (1, "seconds")
    )
    lives = _lives(story)

    def time(seconds: float) -> float:
        return round(seconds / time_scale, 4)

    def position(one: Sample) -> float | None:
        return at(one.told, story.counter)

    time_label = f"Time since the start ({time_unit})"
    counted = story.counter.capitalize() if story.counter else None
    return {
        "interruptions": [
            {
                "from": time(one.t),
                "to": time(one.restored_t),
                "before": at(one.before, story.counter),
                "after": at(one.after, story.counter),
                "text": f"Interruption {number}: {duration(one.downtime_s)} down, {duration(one.lost_s)} done again",
            }
            for number, one in enumerate(story.interruptions, start=1)
        ],
        "progress": counted
        and {
            "x": time_label,
            "y": counted,
            **_curve(lives, lambda one: time(one.t), position, broken=True),
            "snapshots": [
                [time(one.t), reached]
                for one in story.snapshots
                if (reached := at(one.told, story.counter)) is not None
            ],
        },
        "metrics": {
            "x": counted or time_label,
            "curves": [
                {
                    "name": name,
                    **_curve(
                        lives,
                        position if story.counter else lambda one: time(one.t),
                        lambda one, name=name: one.told.metrics.get(name),  # type: ignore[misc]
                        broken=story.counter is None,
                    ),
                }
                for name in _metrics(story.samples)
            ],
        },
        "pauses": _pauses(story.snapshots),
        "sizes": _sizes(story.snapshots),
    }


def triggers(story: Story) -> list[str]:
    """In the order in which they first came."""
    return list(dict.fromkeys(one.trigger for one in story.snapshots))


def in_order(metrics: Iterable[str]) -> list[str]:
    """Those first that most readers look for: losses."""
    return sorted(metrics, key=lambda name: (name.lower() != "loss", "loss" not in name.lower()))


def number_of(one: Taken) -> int:
    """The number in its id."""
    return sequence_of(one.id) or 0


def _lives(story: Story) -> list[list[Sample]]:
    restores = [one.restored_t for one in story.interruptions]
    return [list(life) for _, life in groupby(story.samples, key=lambda one: bisect_right(restores, one.t))]


def _curve(
    lives: Sequence[Sequence[Sample]],
    x: Callable[[Sample], float | None],
    y: Callable[[Sample], float | None],
    *,
    broken: bool,
) -> dict[str, Any]:
    """What counts as one line, ``broken`` between lives; what was done again as one each, from where it counts."""
    kept: list[tuple[float, float | None]] = []
    redone: list[list[tuple[float, float]]] = []
    for life in lives:
        points = [(a, b, one.redone) for one in life if (a := x(one)) is not None and (b := y(one)) is not None]
        kept += _thin([(a, b) for a, b, undone in points if not undone], _MOST_POINTS // max(1, len(lives)))
        if broken and kept:
            kept.append((kept[-1][0], None))
        redone += [_thin(stretch, _MOST_POINTS // 10) for stretch in _stretches(points)]
    if not broken:
        kept.sort(key=lambda point: point[0])
    return {"kept": _columns(kept), "redone": [_columns(stretch) for stretch in redone]}


def _stretches(points: Sequence[tuple[float, float, bool]]) -> Iterator[list[tuple[float, float]]]:
    before: list[tuple[float, float]] = []
    for undone, group in groupby(points, key=lambda point: point[2]):
        stretch = [(a, b) for a, b, _ in group]
        if undone:
            yield before + stretch
        before = stretch[-1:]


def _thin(points: list[_T], most: int) -> list[_T]:
    """Every so-manieth, the first and the last among them."""
    stride = -(-len(points) // max(2, most))
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def _columns(points: Iterable[tuple[float, float | None]]) -> list[list[float | None]]:
    rows = [(x, None if y is None else float(f"{y:.7g}")) for x, y in points]
    return [[x for x, _ in rows], [y for _, y in rows]]


def _metrics(samples: Sequence[Sample]) -> list[str]:
    """Those that were told twice at least, losses first."""
    told: dict[str, int] = {}
    for one in samples:
        for name in one.told.metrics:
            told[name] = told.get(name, 0) + 1
    often = [name for name, times in told.items() if times > 1]
    return in_order(often)[:_MOST_METRICS]


def _pauses(snapshots: Sequence[Taken]) -> dict[str, Any] | None:
    known = [(number_of(one), one.pause_s, one.trigger) for one in snapshots if one.pause_s is not None]
    if not known:
        return None
    scale, unit = (1000.0, "milliseconds") if max(pause for _, pause, _ in known) < 1.5 else (1.0, "seconds")
    return {
        "x": "Snapshot (number)",
        "y": f"Pause ({unit})",
        "bars": [[number, round(pause * scale, 4), trigger] for number, pause, trigger in known],
    }


def _sizes(snapshots: Sequence[Taken]) -> dict[str, Any] | None:
    known = [(number_of(one), one.memory_bytes, one.added_bytes) for one in snapshots if one.memory_bytes is not None]
    if not known:
        return None
    largest = max(memory for _, memory, _ in known)
    scale, unit = next(((size, name) for size, name in _SIZES if largest >= size), (1, "bytes"))
    return {
        "x": "Snapshot (number)",
        "y": f"Size ({unit})",
        "bars": [
            [number, round(memory / scale, 4), None if added is None else round(added / scale, 4)]
            for number, memory, added in known
        ],
    }
