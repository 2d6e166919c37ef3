"""Keeping the gauge of one life current, and its progress in ``events.jsonl``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from types import TracebackType

from criu_train.progress.line import NOTHING
from criu_train.store.events import EventLog
from criu_train.supervisor.gauge import Gauge

_PAUSE_S = 2.0
# Of its own time: so that a training which prints without end costs no more than a thousandth of a core.
_REST = 1000.0
# Of the run's age: so that a log of months stays small, and what is new in it is still fine enough for a plot.
_SHARE_OF_AGE = 1 / 2000


class Recorder:
    """An async context: the training's progress is followed within it. ``began_at``: the run, in ISO 8601.

    ``pause_s``: at least, between two events; ``look_s``: between two looks, None for the same.
    """

    def __init__(
        self,
        gauge: Gauge,
        events: EventLog,
        began_at: str,
        *,
        pause_s: float = _PAUSE_S,
        look_s: float | None = None,
    ) -> None:
        self._gauge = gauge
        self._events = events
        self._began_at = datetime.fromisoformat(began_at)
        self._pause_s = pause_s
        self._look_s = pause_s if look_s is None else look_s
        self._written = NOTHING
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._gauge.begin_anew()
        self._task = asyncio.get_running_loop().create_task(self._record())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        self._look()
        self._write()

    async def _record(self) -> None:
        while True:
            began = time.thread_time()  # on a busy machine waiting takes long, and costs nothing
            self._look()
            if time.monotonic() >= self._not_before:
                self._write()
            await asyncio.sleep(max(self._look_s, _REST * (time.thread_time() - began)))

    def _look(self) -> None:
        with contextlib.suppress(Exception):  # it only explains: no mistake in it may cost a training
            self._gauge.update()

    def _write(self) -> None:
        told = self._gauge.told
        if told == self._written:
            return
        self._events.append("progress", step=told.step, epoch=told.epoch, metrics=dict(told.metrics))
        self._written = told
        age_s = (datetime.now(UTC) - self._began_at).total_seconds()
        self._not_before = time.monotonic() + max(self._pause_s, age_s * _SHARE_OF_AGE)
