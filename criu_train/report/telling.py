"""From the events of a run to its story."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile

from criu_train.progress.line import NOTHING, Told
from criu_train.report.counting import at, counter_of, time_of_cut
from criu_train.report.events import Event, Run
from criu_train.report.notes import notes
from criu_train.report.story import Counter, Failed, Interruption, Sample, State, Story, Taken

Span = tuple[float, float]
_BY_HAND = "the training was sent back to a snapshot by hand"
_ENDS: Mapping[str, State] = {
    "finished": "finished",
    "stopped": "stopped",
    "gave_up": "gave up",
    "died": "interrupted",
    "stood_still": "interrupted",
    "interrupted": "interrupted",
}


@dataclass(frozen=True)
class Manifested:
    """What a manifest tells of a snapshot, where its event is of an older version."""

    told: Told
    memory_bytes: int | None
    added_bytes: int | None
    tasks: int | None


def tell(run: Run, manifests: Mapping[str, Manifested] | None = None) -> Story:
    """``manifests``: of the snapshots that are still there, by id."""
    return _Teller(run, manifests or {}).tell()


@dataclass
class _End:
    t: float
    cause: str
    state: State


@dataclass
class _Teller:
    """Reads one event after another; ``tell`` once."""

    run: Run
    manifests: Mapping[str, Manifested]
    counter: Counter | None = None
    quiet: bool = False  # it told nothing between its snapshots
    born: float | None = None  # when the present life began
    end: _End | None = None  # how the last life ended, while none goes on
    exit_code: int | None = None
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    now: Told = NOTHING  # how far the present life is
    heard: float = 0.0  # the last sign of life
    lived: list[Span] = field(default_factory=list)
    counts: list[Span] = field(default_factory=list)  # of what was lived: what no restore has undone
    samples: list[Sample] = field(default_factory=list)
    snapshots: list[Taken] = field(default_factory=list)
    interruptions: list[Interruption] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    def tell(self) -> Story:
        events = self.run.events
        began = events[0].t
        self.counter = counter_of(events)
        self.quiet = not any(event.kind == "progress" for event in events)
        for event in events:
            self._take(event, event.t - began)
            if event.kind not in ("interrupted", "restore"):
                self.heard = event.t - began
        wall_s = events[-1].t - began
        if self.born is not None:
            self._die(wall_s)
        command = next((event.fields.get("command") for event in events if event.kind == "started"), ())
        return Story(
            run=self.run.id,
            command=[str(word) for word in command] if isinstance(command, list) else (),
            began_at=began,
            wall_s=wall_s,
            state=self.end.state if self.end else "going on",
            exit_code=self.exit_code,
            counter=self.counter,
            spans=tuple(self.lived),
            samples=tuple(self.samples),
            snapshots=tuple(self.snapshots),
            interruptions=tuple(self.interruptions),
            failed=tuple(self.failed),
            last=self.now,
            notes=tuple(notes(self.run, self.counter)),
            kept=frozenset(self.manifests),
        )

    def _take(self, event: Event, t: float) -> None:
        if event.kind == "restored":
            self._restored(event, t)
            return
        if event.kind in ("started", "adopted", "progress", "dumped") and self.born is None and not self.lived:
            self.born = t  # also where the beginning of the log is lost
        if event.kind in ("started", "progress"):
            self._sample(t, event.told)
        elif event.kind == "dumped":
            self._dumped(event, t)
        elif event.kind == "dump_failed":
            self.failed.append(Failed(t, event.text("trigger"), event.text("reason")))
        elif event.kind == "restore":
            self.passed_over += _passed_over(event)
        elif event.kind in _ENDS:
            self._ended(event, t)

    def _sample(self, t: float, told: Told) -> None:
        if told:
            self.now = self.now.then(told)
            # What is told as the life ends is as of its end.
            self.samples.append(Sample(self.lived[-1][1] if self.born is None and self.lived else t, told))

    def _dumped(self, event: Event, t: float) -> None:
        seconds, frozen_us = event.number("seconds"), event.number("frozen_time_us")
        known = self.manifests.get(event.text("snapshot"))
        told = event.told or (known.told if known else NOTHING)
        memory, added, tasks = (event.whole(name) for name in ("memory_bytes", "added_bytes", "tasks"))
        goes_on = event.text("trigger") != "preempt"
        born = self.born or 0.0
        life = takewhile(lambda one: one.t >= born, reversed(self.samples))
        taken = Taken(
            id=event.text("snapshot"),
            t=time_of_cut(told, max(t - (seconds or 0.0), born), t, life, self.counter),
            trigger=event.text("trigger") or "unknown",
            told=told,
            # A training with hooks stands between two steps first, and waits there for CRIU.
            pause_s=(frozen_us + (event.number("parked_us") or 0)) / 1e6 if frozen_us is not None and goes_on else None,
            seconds=seconds,
            memory_bytes=known.memory_bytes if memory is None and known else memory,
            stored_bytes=event.whole("stored_bytes"),
            added_bytes=known.added_bytes if added is None and known else added,
            tasks=known.tasks if tasks is None and known else tasks,
        )
        self.snapshots.append(taken)
        reached, was = at(told, self.counter), at(self.now, self.counter)
        if self.quiet or (reached is not None and (was is None or reached > was)):
            self._sample(taken.t, told)
        if not goes_on:
            self._die(taken.t)

    def _ended(self, event: Event, t: float) -> None:
        if event.kind == "stood_still" and not event.text("next"):
            return  # it is left running
        cause = event.text("cause") or event.text("reason") or _cause(event)
        if self.end is not None and event.kind == "interrupted":
            if self.end.state == "stopped":
                self.end.cause = cause
            return  # it was seen as it happened
        if self.born is not None:
            self._die(self.heard if event.kind == "interrupted" else t)
        self.end = _End(self.lived[-1][1] if self.lived else t, cause, _ENDS[event.kind])
        self.exit_code = event.whole("exit_code") if event.kind in ("finished", "gave_up") else None

    def _die(self, t: float) -> None:
        if self.born is not None:
            self.lived.append((self.born, max(t, self.born)))
            self.counts.append(self.lived[-1])
            self.born = None

    def _restored(self, event: Event, t: float) -> None:
        if self.born is not None:
            self._die(self.heard)
        end = self.end or _End(self.lived[-1][1] if self.lived else 0.0, _BY_HAND, "interrupted")
        cause = _BY_HAND if end.state == "finished" else end.cause
        taken = next((one for one in reversed(self.snapshots) if one.id == event.text("snapshot")), None)
        known = self.manifests.get(event.text("snapshot"))
        after = taken.told if taken else known.told if known else NOTHING
        after = Told(event.whole("step")).then(after)
        cut = taken.t + (taken.pause_s or 0.0) if taken else 0.0
        self.interruptions.append(
            Interruption(
                t=end.t,
                restored_t=max(t, end.t),
                cause=cause,
                snapshot=event.text("snapshot"),
                passed_over=tuple(self.passed_over),
                before=self.now,
                after=after,
                lost_s=self._undo(cut, after),
                lost_steps=self._steps_between(after, self.now),
            )
        )
        self.passed_over, self.end, self.exit_code = [], None, None
        self.born, self.now = t, NOTHING
        self._sample(t, after)

    def _undo(self, cut: float, after: Told) -> float:
        """What was done since the cut counts no more; returns how long that took, without pauses."""
        gone = [(max(begin, cut), end) for begin, end in self.counts if end > cut]
        self.counts = [(begin, min(end, cut)) for begin, end in self.counts if begin < cut]
        pauses = sum(one.pause_s or 0.0 for one in self.snapshots if any(begin <= one.t < end for begin, end in gone))
        reached = at(after, self.counter)

        def undone(one: Sample) -> bool:
            was = at(one.told, self.counter)
            return one.t > cut if was is None or reached is None else was > reached

        self.samples = [one if one.redone or not undone(one) else replace(one, redone=True) for one in self.samples]
        return max(0.0, sum(end - begin for begin, end in gone) - pauses)

    def _steps_between(self, after: Told, before: Told) -> int | None:
        if self.counter != "step" or after.step is None or before.step is None:
            return None
        return max(0, before.step - after.step)


def _passed_over(event: Event) -> list[tuple[str, str]]:
    attempts = event.fields.get("attempts")
    tried = [one for one in attempts if isinstance(one, dict)] if isinstance(attempts, list) else []
    return [(str(one.get("snapshot")), str(one["reason"])) for one in tried if one.get("reason")]


def _cause(event: Event) -> str:
    if event.kind == "stopped":
        return f"it was stopped by {event.text('signal') or 'a signal'}"
    return "the restored training stood still" if event.kind == "stood_still" else "it came to its end"
