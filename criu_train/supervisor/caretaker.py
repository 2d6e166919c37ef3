"""Looking after the training while it lives: dumps when they are due, its output shown, its progress written down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from criu_train.criu.find import Criu
from criu_train.progress.line import NOTHING, Told
from criu_train.store.events import EventLog
from criu_train.store.state import Run
from criu_train.store.store import Store
from criu_train.supervisor.beginning import Life
from criu_train.supervisor.dump_context import DumpContext
from criu_train.supervisor.dumping import Dumper
from criu_train.supervisor.foreseeing import Foresight
from criu_train.supervisor.gauge import Gauge
from criu_train.supervisor.hook_files import close
from criu_train.supervisor.keeper import Keeper
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.output import OutputFollower, our_terminal_size
from criu_train.supervisor.planning import Planner
from criu_train.supervisor.recording import Recorder
from criu_train.supervisor.rendezvous import Rendezvous
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.requests import Requests
from criu_train.supervisor.schedule import Schedule
from criu_train.supervisor.state import StateFile
from criu_train.supervisor.vigil import Vigil
from criu_train.supervisor.watching import Outcome, Watcher
from criu_train.workspace.policy import WorkspacePolicy
from criu_train.workspace.tracker import Tracker

# Between two looks at the training's progress, where it decides about dumps.
_LOOK_S = 0.25


class Caretaker:
    """Of one run's lives, one after another. ``gauge``: how far the training is.

    ``policy``: what belongs to a run's workspace. ``left_of_interval``: seconds until the first dump of a training that
    was taken over.
    """

    def __init__(
        self,
        *,
        store: Store,
        criu: Criu,
        keeper: Keeper,
        options: RunOptions,
        runtime: Path,
        state: StateFile,
        events: EventLog,
        reporter: Reporter,
        requests: Requests,
        policy: Callable[[Run], WorkspacePolicy],
        left_of_interval: float | None,
    ) -> None:
        self._store = store
        self._criu = criu
        self._keeper = keeper
        self._options = options
        self._runtime = runtime
        self._state = state
        self._events = events
        self._reporter = reporter
        self._requests = requests
        self._policy = policy
        self._left_of_interval = left_of_interval
        self._planner = Planner(options, events)
        self._rendezvous: Rendezvous | None = None
        self.gauge = Gauge(store.layout.output_log, options.progress_regex, overlay=self._told_by_hooks)

    async def watch(self, life: Life, vigil: Vigil | None) -> Outcome:
        """Until it ends, or is ended; what happened then."""
        cell, output = life.cell, self._store.layout.output_log
        try:
            schedule = self._planner.schedule(life, lambda: self.gauge.told, self._left_of_interval)
            watcher = self._watcher(life, schedule, vigil)
            follower = self._follow_output(_shown_so_far(output, life))
        except BaseException:
            if not life.adopted:
                await cell.kill()  # nobody would watch over it; the run goes on from the same snapshot
            raise
        self._reporter.started(os.getpid(), str(self._planner), schedule.left if schedule.trigger == "trial" else None)
        self._requests.on_resize = lambda: cell.resize(our_terminal_size())
        self._requests.on_resize()  # a restored terminal has the size that it had
        try:
            decides = self._options.every_steps or self._options.every_epochs
            async with Recorder(self.gauge, self._events, life.run.started_at, look_s=_LOOK_S if decides else None):
                outcome = await watcher.watch()
            await cell.close()
            return outcome
        finally:
            close(life.hooks, remove=cell.ended.done())
            if follower is not None:
                await asyncio.to_thread(follower.stop)

    def _watcher(self, life: Life, schedule: Schedule, vigil: Vigil | None) -> Watcher:
        blobs = life.snapshot.files if life.snapshot else None
        policy, seal = self._policy(life.run), self._store.seal
        tracker = Tracker(policy, life.listing, life.cell.journal, blobs=blobs, seal=seal)
        self._rendezvous = rendezvous = Rendezvous(
            life.hooks,
            life.cell,
            limit_s=self._options.align_timeout,
            wanted=lambda: self._state.state.state == "running" and self._requests.dump("hook"),
        )
        context = DumpContext(
            store=self._store,
            run=life.run,
            criu=self._criu,
            cell=life.cell,
            tracker=tracker,
            keeper=self._keeper,
            options=self._options,
            runtime=self._runtime,
            rendezvous=rendezvous,
        )
        return Watcher(
            cell=life.cell,
            dumper=Dumper(context),
            requests=self._requests,
            store=self._store,
            state=self._state,
            events=self._events,
            reporter=self._reporter,
            options=self._options,
            schedule=schedule,
            foresight=None if life.snapshot else Foresight(self._events, self._reporter),
            vigil=vigil,
            rendezvous=rendezvous,
        )

    def _told_by_hooks(self) -> Told:
        return self._rendezvous.told() if self._rendezvous is not None else NOTHING

    def _follow_output(self, start: int) -> OutputFollower | None:
        try:
            return OutputFollower(self._store.layout.output_log, start)
        except OSError as error:
            self._reporter.warning(
                f"the training's output can't be shown live: {error.strerror}",
                f"it is all in {self._store.layout.output_log}; too many inotify watches on this machine?",
            )
            return None


def _shown_so_far(output: Path, life: Life) -> int:
    """Bytes of output.log: those at the cut, since what was written after a restore is still to be shown; of an adopted
    training all that there are, since nobody knows what its supervisor had shown."""
    if life.adopted:
        return output.stat().st_size if output.exists() else 0
    entries = life.listing.entries if life.listing else ()
    return next((entry.size for entry in entries if entry.path == str(output)), 0)
