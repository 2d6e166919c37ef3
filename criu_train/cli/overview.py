"""What is going on in a store, by its files alone: whoever looks disturbs nobody."""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from criu_train.errors import CriuTrainError
from criu_train.progress.following import Following
from criu_train.progress.line import NOTHING, Told
from criu_train.store.event_tail import EventTail
from criu_train.store.layout import sequence_of
from criu_train.store.store import Store
from criu_train.supervisor.gauge import Gauge
from criu_train.supervisor.state import ALIVE, State, read_state
from criu_train.units import format_duration, format_size, seconds_until

_KEPT = 200  # snapshots, for a row of blocks across the widest terminal
_EVENTS = 50


@dataclass(frozen=True)
class Taken:
    """A snapshot as the view has it; seconds and bytes, None where nobody counted."""

    id: str
    at: str
    pause_s: float | None
    memory_bytes: int
    added_bytes: int | None


@dataclass(frozen=True)
class Happened:
    """An event in words."""

    at: str
    text: str
    bad: bool = False


@dataclass(frozen=True)
class Overview:
    """All there is to see at one moment. ``alive``: somebody supervises, or the training runs on alone.

    ``next_dump_s``: None where no dump comes by itself.
    """

    state: str
    alive: bool
    run: str | None
    restored_from: str | None
    told: Told
    steps_per_second: float | None
    next_dump_s: float | None
    dumps_failed: int
    exit_code: int | None
    taken: tuple[Taken, ...]
    happened: tuple[Happened, ...]
    news: tuple[Happened, ...]  # what of it had not been there at the last look


class Looker:
    """Looks again and again at one store; ``pattern``: the training's own way to tell its progress."""

    def __init__(self, store: Store, pattern: re.Pattern[str] | None = None) -> None:
        self._layout = store.layout
        self._output = Following(self._layout.output_log, pattern)
        self._gauge = Gauge(Path(os.devnull), overlay=self._told)  # of what both tell
        self._tail = EventTail(self._layout.events)
        self._by_events = NOTHING
        self._taken = {one.id: one for one in _known(store)}
        self._happened: deque[Happened] = deque(maxlen=_EVENTS)

    def look(self) -> Overview:
        """Reads what is new since the last look."""
        news = [text for event in self._tail.new() if (text := self._take_in(event)) is not None]
        self._happened.extend(news)
        self._output.update()
        self._gauge.update()
        state = read_state(self._layout.supervisor) or State()
        cell, supervised = state.cell_alive(), state.supervisor_alive()
        name = "lost" if state.state in ALIVE and not supervised else state.state
        return Overview(
            state=name,
            alive=cell or (supervised and name in ALIVE),
            run=state.run,
            restored_from=state.restored_from,
            told=self._gauge.told,
            steps_per_second=self._gauge.steps_per_second if name in ("running", "dumping") else None,
            next_dump_s=_until(state.next_dump_at) if name == "running" else None,
            dumps_failed=state.dumps_failed,
            exit_code=state.exit_code,
            taken=tuple(self._taken.values())[-_KEPT:],
            happened=tuple(self._happened),
            news=tuple(news),
        )

    def _told(self) -> Told:
        """The output's, which is newer, unless it is behind: then it counts something else than the supervisor."""
        output, events = self._output.told, self._by_events
        behind = events.step is not None and (output.step is None or output.step < events.step)
        return output.then(events) if behind else events.then(output)

    def _take_in(self, event: Mapping[str, Any]) -> Happened | None:
        kind = event["event"]
        with contextlib.suppress(LookupError, TypeError, ValueError):  # of another version, or by somebody else
            if kind == "progress":
                self._by_events = self._by_events.then(_told_by(event))
            if kind in ("started", "restored"):
                self._output.begin_anew()
                self._gauge.begin_anew()
                self._by_events = Told(step=event.get("step"))
            if kind == "dumped":
                one = _taken_by(event)
                self._taken[one.id] = replace(self._taken.get(one.id, one), at=one.at)
        if kind == "progress":
            return None
        return Happened(str(event.get("at", "")), in_words(event), kind in _BAD)


_BAD = frozenset({"dump_failed", "stood_still", "died", "interrupted", "gave_up", "not_proven"})
_WORDS: Mapping[str, str] = {
    "started": "started from the beginning",
    "dump_failed": "no snapshot: {reason}",
    "dump_skipped": "no snapshots until the restored training moves",
    "restored": "restored from snapshot {number}",
    "adopted": "taken over by a new supervisor",
    "stood_still": "stands still since it was restored from snapshot {number}",
    "died": "died: {reason}",
    "interrupted": "was interrupted: {cause}",
    "stopping": "{signal}: a last snapshot, then the end",
    "stopped": "stopped ({how}); the next start goes on",
    "gave_up": "died again, and is not restored any more: {reason}",
    "finished": "came to its end with exit code {exit_code}",
    "preflight": "{what}",
    "not_proven": "snapshot {number} was not proven: {reason}",
}


def in_words(event: Mapping[str, Any]) -> str:
    """One event for people, without line breaks; an unknown one by its name."""
    kind = str(event["event"])
    facts = {**event, "number": sequence_of(str(event.get("snapshot"))) or event.get("snapshot")}
    try:
        if kind == "dumped":
            pause, added = facts["frozen_time_us"], facts["added_bytes"]
            paused = f", paused {format_duration(pause / 1e6)}" if pause is not None else ""
            more = f", {format_size(added)} added" if added is not None else ""
            text = f"snapshot {facts['number']} ({facts['trigger']}){paused}{more}"
        elif kind == "restore":
            text = f"restore of {len(facts['attempts'])} snapshot{'s' if len(facts['attempts']) != 1 else ''} tried"
        elif kind == "proven":
            text = f"snapshot {facts['number']} {'can' if facts['ok'] else 'can NOT'} be restored"
        else:
            text = _WORDS[kind].format_map(facts)
    except (LookupError, TypeError, ValueError, AttributeError):
        text = kind.replace("_", " ")
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _known(store: Store) -> list[Taken]:
    """The snapshots that are there already; those of an encrypted store only with its key."""
    try:
        listed = store.listing(_KEPT)
    except (CriuTrainError, OSError):
        return []
    return [
        Taken(one.id, one.created_at, _pause(one.manifest.frozen_time_us), one.manifest.memory_bytes, added)
        for one in listed
        if one.status == "complete" and one.manifest is not None
        for added in (one.manifest.added_bytes,)
    ]


def _taken_by(event: Mapping[str, Any]) -> Taken:
    pause = event.get("frozen_time_us")
    return Taken(event["snapshot"], event["at"], _pause(pause), event.get("memory_bytes", 0), event.get("added_bytes"))


def _told_by(event: Mapping[str, Any]) -> Told:
    return Told(event["step"], event["epoch"], {str(name): float(value) for name, value in event["metrics"].items()})


def _pause(frozen_time_us: int | None) -> float | None:
    return None if frozen_time_us is None else frozen_time_us / 1e6


def _until(iso: str | None) -> float | None:
    try:
        return None if iso is None else seconds_until(iso)
    except (ValueError, TypeError):
        return None
