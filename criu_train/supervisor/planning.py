"""When one life of the training is to be dumped, by what the user has chosen and what the run has shown."""

from __future__ import annotations

from collections.abc import Callable

from criu_train.progress.line import Told
from criu_train.store.events import EventLog
from criu_train.supervisor.beginning import Life
from criu_train.supervisor.describing import pause_of
from criu_train.supervisor.interval import Auto, mean_time_between_failures
from criu_train.supervisor.milestones import Milestones
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.schedule import Schedule
from criu_train.units import format_duration


class Planner:
    """Of one supervisor: what snapshots have cost is remembered from one life to the next."""

    def __init__(self, options: RunOptions, events: EventLog) -> None:
        self._options = options
        self._events = events
        self._auto: Auto | None = None

    def schedule(self, life: Life, told: Callable[[], Told], left: float | None) -> Schedule:
        """``told``: how far the training is now; ``left``: of an interval that began under another supervisor."""
        options = self._options
        return Schedule(
            self._learn(life) if options.every == "auto" else options.every,
            # What was restored has been dumped before: there is nothing to try.
            None if life.snapshot else options.warmup,
            left=left if life.adopted else None,
            milestones=Milestones(options.every_steps, options.every_epochs),
            told=told,
        )

    def _learn(self, life: Life) -> Auto:
        mtbf_s = self._options.mtbf or mean_time_between_failures(self._events.read(), life.run.id)
        if self._auto is None:
            known = life.snapshot.manifest if life.snapshot else None
            self._auto = Auto(mtbf_s, self._options.overhead, pause_of(known) if known else None)
        self._auto.mtbf_s = mtbf_s
        return self._auto

    def __str__(self) -> str:
        """For people."""
        options = self._options
        plans = [
            *(["as often as it pays"] if options.every == "auto" else []),
            *([f"every {format_duration(options.every)}"] if isinstance(options.every, float | int) else []),
            *([f"every {options.every_steps} steps"] if options.every_steps else []),
            *([f"every {options.every_epochs} epochs"] if options.every_epochs else []),
        ]
        return f"a snapshot {' and '.join(plans)}" if plans else "no timer"
