"""What each event in ``events.jsonl`` is about and what it tells. docs/events.md is made from this table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Type = Literal["string", "integer", "number", "boolean", "strings", "numbers by name", "attempts"]


@dataclass(frozen=True)
class Field:
    """``meaning``: with the unit, where it is a quantity. ``null``: what the absence of a value means, None: never."""

    name: str
    type: Type
    meaning: str
    null: str | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of event: when it is written, and what it tells beside ``COMMON``."""

    name: str
    when: str
    fields: tuple[Field, ...] = ()


COMMON = (
    Field("at", "string", "when it was written: UTC, ISO 8601, with milliseconds"),
    Field("event", "string", "which of the events below"),
    Field("run", "string", "the run: from one cold start to its end, however many restores", "before any run"),
)

_SNAPSHOT = Field("snapshot", "string", "id of the snapshot")
_STEP = Field("step", "integer", "the training's step", "it told none")
_PROGRESS = (
    _STEP,
    Field("epoch", "number", "the training's epoch", "it told none"),
    Field("metrics", "numbers by name", "by the training's own names, the newest of each"),
)
_TRIGGER = Field("trigger", "string", "`timer`, `step`, `epoch`, `signal`, `manual`, `hook`, `trial` or `preempt`")
_EXIT_CODE = Field("exit_code", "integer", "the training's; 128+n for signal n")
_REASON = Field("reason", "string", "why, in words")
_TIP = Field("tip", "string", "what to do about it", "nothing")
_SIGNAL = Field("signal", "string", "`SIGTERM` or `SIGINT`")

KINDS = (
    Kind(
        "started",
        "A run has begun from its beginning.",
        (Field("command", "strings", "the command line that was run: the run's, or that of `--cold-command`"), _REASON),
    ),
    Kind(
        "progress",
        "How far the training is now. While it runs, at most every two seconds, or every two thousandth of the run's "
        "age where that is longer; only when something has changed, and once at the end of each life.",
        _PROGRESS,
    ),
    Kind(
        "preflight",
        "Before the first dump: what a snapshot of this training does not carry.",
        (
            Field("level", "string", "`blocks` (no snapshot can be taken) or `warns`"),
            Field("what", "string", "what was found"),
            Field("why", "string", "what of it a snapshot lacks"),
            Field("tip", "string", "what to change"),
        ),
    ),
    Kind(
        "dumped",
        "A snapshot is complete, and durable.",
        (
            _SNAPSHOT,
            _TRIGGER,
            *_PROGRESS,
            Field("frozen_time_us", "integer", "how long the training stood still, microseconds", "not known"),
            Field("seconds", "number", "from the begin of the dump to the complete snapshot, seconds"),
            Field("memory_bytes", "integer", "the training's memory in it"),
            Field("stored_bytes", "integer", "what the snapshot takes in the store, shared or not"),
            Field("added_bytes", "integer", "what of it no earlier snapshot had", "not counted"),
            Field("tasks", "integer", "processes in it"),
            Field("aligned", "boolean", "whether the training stood between two steps", "it uses no hooks"),
            Field("parked_us", "integer", "how long it had stood there before, microseconds", "it uses no hooks"),
            Field("notes", "strings", "what it could not hold, and what else a person should know"),
        ),
    ),
    Kind(
        "dump_failed",
        "There is no snapshot; the training runs on.",
        (_TRIGGER, _REASON, _TIP, Field("details", "string", "for a report, of a failure of ours", "none are known")),
    ),
    Kind(
        "dump_skipped",
        "The timer takes no snapshots of a restored training before it moves; told once.",
        (_TRIGGER,),
    ),
    Kind(
        "proven",
        "A trial restore of a snapshot has come to its end.",
        (
            _SNAPSHOT,
            Field("ok", "boolean", "whether it can be restored"),
            Field("problems", "strings", "why not"),
        ),
    ),
    Kind("not_proven", "A trial restore was not possible, which says nothing of the snapshot.", (_SNAPSHOT, _REASON)),
    Kind(
        "restore",
        "A restore was tried.",
        (Field("attempts", "attempts", "in their order: `snapshot`; `reason` (null: it works) and `tip`"),),
    ),
    Kind(
        "restored",
        "The training runs again, from a snapshot.",
        (
            _SNAPSHOT,
            Field("step", "integer", "the training's step in it", "it told none"),
            Field("seconds", "number", "how long the restore took, snapshots that failed included, seconds"),
            Field("notes", "strings", "connections that come back in another way"),
            Field("warnings", "strings", "what differs from when it was taken"),
        ),
    ),
    Kind(
        "adopted",
        "A training that had lost its supervisor was taken over as it runs.",
        (
            Field("init_pid", "integer", "PID 1 of its cell, as the host numbers it"),
            Field("lost_supervisor_pid", "integer", "of the supervisor that was lost", "not known"),
        ),
    ),
    Kind(
        "stood_still",
        "A restored training that was at work at its dump has not moved.",
        (
            Field("snapshot", "string", "id of the snapshot that it was restored from"),
            Field("limit_s", "number", "for how long, seconds"),
            Field("next", "string", "id of the snapshot that is tried instead", "it is left running"),
        ),
    ),
    Kind(
        "died",
        "The training has ended by itself, not well; it is restored after a pause.",
        (_REASON, _EXIT_CODE, Field("backoff_s", "number", "the pause, seconds")),
    ),
    Kind(
        "interrupted",
        "A run that was interrupted is to go on. Written at the next start: the event before tells when it happened.",
        (Field("cause", "string", "what ended the last supervisor's watch, in words"),),
    ),
    Kind("stopping", "We were asked to stop: a last snapshot, then the end.", (_SIGNAL,)),
    Kind(
        "stopped",
        "We have stopped; the run goes on at the next start.",
        (
            Field("how", "string", "`preempted` (with a snapshot), `terminated`, `killed`, or at what else it was"),
            _SIGNAL,
        ),
    ),
    Kind("gave_up", "The training died again, and is not restored any more.", (_REASON, _EXIT_CODE)),
    Kind("finished", "The run has come to its end.", (_EXIT_CODE,)),
)

_BY_NAME = {kind.name: kind for kind in KINDS}


def misfits(event: Mapping[str, Any]) -> tuple[str, ...]:
    """What of an event is not as documented; nothing where all is."""
    if (kind := _BY_NAME.get(event.get("event", ""))) is None:
        return (f"unknown event {event.get('event')!r}",)
    fields = {field.name: field for field in (*COMMON, *kind.fields)}
    wrong = [f"{kind.name}: {name} is not documented" for name in event if name not in fields]
    for field in fields.values():
        if field.name not in event:
            wrong.append(f"{kind.name}: {field.name} is missing")
        elif not (event[field.name] is None and field.null) and not _FITS[field.type](event[field.name]):
            wrong.append(f"{kind.name}: {field.name} is no {field.type}: {event[field.name]!r}")
    return tuple(wrong)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_attempt(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"snapshot", "reason", "tip"}


_FITS: Mapping[Type, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "strings": lambda value: isinstance(value, list | tuple) and all(isinstance(one, str) for one in value),
    "numbers by name": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "attempts": lambda value: isinstance(value, list | tuple) and all(map(_is_attempt, value)),
}
