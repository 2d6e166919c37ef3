"""What a run is and does, as metrics of Prometheus: names, units and meanings in one table.

Each sample has the label ``store`` as well: node_exporter takes the files of several trainings together, and refuses
all of them where two tell the same.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

import criu_train
from criu_train.progress.line import NOTHING, Told
from criu_train.store.events import Event
from criu_train.store.layout import StoreLayout
from criu_train.supervisor.gauge import Gauge
from criu_train.supervisor.state import State, StateName, read_state
from criu_train.supervisor.tally import LastSnapshot, Spread, Tally

Samples = Iterable[tuple[tuple[str, ...], float | None]]


@dataclass(frozen=True)
class Facts:
    """All that metrics tell of, at one moment."""

    tally: Tally
    state: State
    told: Told
    steps_per_second: float | None


@dataclass(frozen=True)
class Row:
    """One metric. ``read``: its samples, each with the values of its ``labels``; None is not told."""

    name: str
    kind: Literal["gauge", "counter"]
    meaning: str
    read: Callable[[Facts], Samples]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Durations:
    """One histogram, of seconds."""

    name: str
    meaning: str
    read: Callable[[Facts], Spread]


def _one(read: Callable[[Facts], float | None]) -> Callable[[Facts], Samples]:
    return lambda facts: [((), read(facts))]


def _of_last(read: Callable[[LastSnapshot], float | None]) -> Callable[[Facts], Samples]:
    return _one(lambda facts: read(facts.tally.last) if facts.tally.last else None)


TABLE = (
    Row(
        "criu_train_run_info",
        "gauge",
        "1; which run it is, the snapshot that it was restored from (empty: none), and the version of criu-train",
        lambda f: [((f.state.run or "", f.state.restored_from or "", criu_train.__version__), 1)],
        ("run", "restored_from", "version"),
    ),
    Row(
        "criu_train_state",
        "gauge",
        "1 for the state that the supervisor is in, 0 for each other one",
        lambda f: [((state,), state == f.state.state) for state in get_args(StateName)],
        ("state",),
    ),
    Row("criu_train_step", "gauge", "the training's step", _one(lambda f: f.told.step)),
    Row("criu_train_epoch", "gauge", "the training's epoch", _one(lambda f: f.told.epoch)),
    Row(
        "criu_train_metric",
        "gauge",
        "the training's own metrics, by the names that it prints",
        lambda f: [((name,), value) for name, value in f.told.metrics.items()],
        ("name",),
    ),
    Row(
        "criu_train_steps_per_second",
        "gauge",
        "steps a second over the last minute, pauses included; 0 once the next one is long overdue",
        _one(lambda f: f.steps_per_second),
    ),
    Row(
        "criu_train_snapshots_total",
        "counter",
        "snapshots taken, by trigger",
        lambda f: [((trigger,), count) for trigger, count in f.tally.snapshots.items()],
        ("trigger",),
    ),
    Row(
        "criu_train_snapshot_failures_total",
        "counter",
        "snapshots that failed, by trigger",
        lambda f: [((trigger,), count) for trigger, count in f.tally.failures.items()],
        ("trigger",),
    ),
    Durations(
        "criu_train_pause_seconds",
        "how long the training stood still for a snapshot; with hooks, parked between two steps too",
        lambda f: f.tally.pauses,
    ),
    Durations(
        "criu_train_snapshot_duration_seconds",
        "from the begin of a dump to the complete snapshot, most of it beside the training",
        lambda f: f.tally.dumps,
    ),
    Row(
        "criu_train_snapshot_added_bytes_total",
        "counter",
        "bytes that snapshots have added to the store",
        _one(lambda f: f.tally.added_bytes),
    ),
    Row(
        "criu_train_last_snapshot_timestamp_seconds",
        "gauge",
        "when the newest snapshot was taken, since 1970",
        _of_last(lambda last: last.taken_at),
    ),
    Row(
        "criu_train_last_snapshot_step",
        "gauge",
        "the training's step in the newest snapshot",
        _of_last(lambda last: last.step),
    ),
    Row(
        "criu_train_last_snapshot_memory_bytes",
        "gauge",
        "the training's memory in the newest snapshot",
        _of_last(lambda last: last.memory_bytes),
    ),
    Row(
        "criu_train_last_snapshot_stored_bytes",
        "gauge",
        "what the newest snapshot takes in the store, shared with others or not",
        _of_last(lambda last: last.stored_bytes),
    ),
    Row(
        "criu_train_next_snapshot_timestamp_seconds",
        "gauge",
        "when the timer takes the next snapshot, since 1970",
        _one(lambda f: datetime.fromisoformat(f.state.next_dump_at).timestamp() if f.state.next_dump_at else None),
    ),
    Durations("criu_train_restore_duration_seconds", "how long restores took", lambda f: f.tally.restores),
    Row(
        "criu_train_restarts_total",
        "counter",
        "restarts after the training died by itself, or stood still",
        _one(lambda f: f.tally.restarts),
    ),
    Row(
        "criu_train_interruptions_total",
        "counter",
        "interruptions of the run that are over: preemptions, kills, reboots, power cuts",
        _one(lambda f: f.tally.interruptions),
    ),
    Row(
        "criu_train_lost_steps_total",
        "counter",
        "steps that had to be made again after restores",
        _one(lambda f: f.tally.lost_steps),
    ),
    Row(
        "criu_train_lost_seconds_total",
        "counter",
        "time that the training had lived after the snapshots that it was restored from",
        _one(lambda f: f.tally.lost_seconds),
    ),
    Row(
        "criu_train_exit_code",
        "gauge",
        "the training's exit code, once the run has come to its end",
        _one(lambda f: f.tally.exit_code),
    ),
)


class Metrics(Collector):
    """Hears of all events of a store, older ones first. Counters go on where the last supervisor of a run left them.

    ``gauge``: of the training that is watched, None before there is one.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._state = layout.supervisor
        self._store = str(layout.root.absolute())
        self._lock = threading.Lock()
        self._tally = Tally()
        self.gauge: Gauge | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def hear(self, event: Event) -> None:
        with self._lock, contextlib.suppress(Exception):  # of another version, or damaged
            self._tally.hear(event)

    def collect(self) -> Iterator[Metric]:
        """Called in any thread."""
        state, gauge = read_state(self._state), self.gauge
        if state is None or state.supervisor_pid != os.getpid():
            state = State()  # of a supervisor before
        with self._lock:
            facts = Facts(
                self._tally, state, gauge.told if gauge else NOTHING, gauge.steps_per_second if gauge else None
            )
            families = [family for row in TABLE if (family := _family(row, facts, self._store)) is not None]
        yield from families


def _family(row: Row | Durations, facts: Facts, store: str) -> Metric | None:
    """None where nothing is known, or what is known is no number: a damaged log keeps no other metric back."""
    with contextlib.suppress(Exception):
        family = _filled(row, facts, store)
        return family if family.samples else None
    return None


def _filled(row: Row | Durations, facts: Facts, store: str) -> Metric:
    if isinstance(row, Durations):
        spread = row.read(facts)
        histogram = HistogramMetricFamily(row.name, row.meaning, labels=("store",))
        histogram.add_metric([_text(store)], spread.up_to_each_bound(), spread.sum)
        return histogram
    make = GaugeMetricFamily if row.kind == "gauge" else CounterMetricFamily
    family = make(row.name, row.meaning, labels=("store", *row.labels))
    for labels, value in row.read(facts):
        if value is not None:
            family.add_metric([_text(label) for label in (store, *labels)], float(value))
    return family


def _text(label: str) -> str:
    """What a training prints, and a path, need not be text."""
    return label.encode(errors="replace").decode()
