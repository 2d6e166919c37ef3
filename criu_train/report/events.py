"""What of ``events.jsonl`` the report reads: each event with its time, and which run it is of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from criu_train.progress.line import Told
from criu_train.store.event_schema import KINDS

# What the story is told from. Others count neither as signs of life nor as clocks.
_KINDS = frozenset(kind.name for kind in KINDS)


@dataclass(frozen=True)
class Event:
    """``t``: seconds since 1970, never before that of the event before: clocks are set back, runs are not."""

    t: float
    kind: str
    run: str
    fields: Mapping[str, Any]

    def number(self, name: str) -> float | None:
        """A finite number, not negative; None for anything else."""
        number = _finite(self.fields.get(name))
        return number if number is not None and number >= 0 else None

    def whole(self, name: str) -> int | None:
        """As ``number``, rounded."""
        number = self.number(name)
        return None if number is None else round(number)

    def text(self, name: str) -> str:
        """Empty for anything but text."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    @property
    def told(self) -> Told:
        """How far the training was."""
        metrics = self.fields.get("metrics")
        named = metrics.items() if isinstance(metrics, dict) else ()
        finite = {str(name): number for name, value in named if (number := _finite(value)) is not None}
        epoch = self.number("epoch")
        return Told(self.whole("step"), finite.pop("epoch", None) if epoch is None else epoch, finite)


@dataclass(frozen=True)
class Run:
    """Its events, oldest first. ``set_back_s``: by how much the clock was set back meanwhile, at most."""

    id: str
    events: Sequence[Event]
    set_back_s: float = 0.0


def runs(lines: Iterable[Mapping[str, Any]]) -> list[Run]:
    """The runs in an event log, that with the newest event last. Lines that are no events are passed over.

    Events of older versions don't say which run they are of: the one that began last, or that their snapshot is of.
    """
    found: dict[str, list[Event]] = {}
    set_back: dict[str, float] = {}
    of_snapshot: dict[str, str] = {}
    run, latest = "", -math.inf
    for line in lines:
        at, kind, named = time_of(line.get("at")), str(line.get("event")), line.get("run")
        if at is None or kind not in _KINDS:
            continue
        snapshot = line.get("snapshot")
        if isinstance(named, str) and named:
            run = named
        elif kind == "restored" and isinstance(snapshot, str):
            run = of_snapshot.get(snapshot, run)
        if kind == "dumped" and isinstance(snapshot, str):
            of_snapshot[snapshot] = run
        set_back[run] = max(set_back.get(run, 0.0), latest - at)
        latest = max(latest, at)
        found[run] = found.pop(run, [])  # the one that is told of last comes last
        found[run].append(Event(latest, kind, run, line))
    return [Run(name, events, set_back[name]) for name, events in found.items()]


def time_of(text: object) -> float | None:
    """Seconds since 1970 of a time in ISO 8601, None for anything else."""
    try:
        moment = datetime.fromisoformat(text)  # type: ignore[arg-type]
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
