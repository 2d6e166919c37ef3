"""Looking after the training while it lives: dumps when they are due, its output shown, its progress written down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from criu_train.progress.line import NOTHING, Told
from criu_train.store.state import Run
from criu_train.supervisor.beginning import Life
from criu_train.supervisor.dump_context import DumpContext
from criu_train.supervisor.dumping import Dumper
from criu_train.supervisor.foreseeing import Foresight
from criu_train.supervisor.gauge import Gauge
from criu_train.supervisor.hook_files import close
from criu_train.supervisor.output import OutputFollower, our_terminal_size
from criu_train.supervisor.planning import Planner
from criu_train.supervisor.recording import Recorder
from criu_train.supervisor.rendezvous import Rendezvous
from criu_train.supervisor.requests import Requests
from criu_train.supervisor.run_context import RunContext
from criu_train.supervisor.schedule import Schedule
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
        context: RunContext,
        requests: Requests,
        *,
        policy: Callable[[Run], WorkspacePolicy],
        left_of_interval: float | None,
    ) -> None:
        self._context = context
        self._requests = requests
        self._policy = policy
        self._left_of_interval = left_of_interval
        self._planner = Planner(context.options, context.events)
        self._rendezvous: Rendezvous | None = None
        output = context.store.layout.output_log
        self.gauge = Gauge(output, context.options.progress_regex, overlay=self._told_by_hooks)

    async def watch(self, life: Life, vigil: Vigil | None) -> Outcome:
        """Until it ends, or is ended; what happened then."""
        context, cell, output = self._context, life.cell, self._context.store.layout.output_log
        try:
            schedule = self._planner.schedule(life, lambda: self.gauge.told, self._left_of_interval)
            watcher = self._watcher(life, schedule, vigil)
            follower = self._follow_output(_shown_so_far(output, life))
        except BaseException:
            if not life.adopted:
                await cell.kill()  # nobody would watch over it; the run goes on from the same snapshot
            raise
        trial_s = schedule.left if schedule.trigger == "trial" else None
        context.reporter.started(os.getpid(), str(self._planner), trial_s)
        self._requests.on_resize = lambda: cell.resize(our_terminal_size())
        self._requests.on_resize()  # a restored terminal has the size that it had
        try:
            decides = context.options.every_steps or context.options.every_epochs
            async with Recorder(self.gauge, context.events, life.run.started_at, look_s=_LOOK_S if decides else None):
                outcome = await watcher.watch()
            await cell.close()
            return outcome
        finally:
            close(life.hooks, remove=cell.ended.done())
            if follower is not None:
                await asyncio.to_thread(follower.stop)

    def _watcher(self, life: Life, schedule: Schedule, vigil: Vigil | None) -> Watcher:
        blobs = life.snapshot.files if life.snapshot else None
        policy, seal = self._policy(life.run), self._context.store.seal
        tracker = Tracker(policy, life.listing, life.cell.journal, blobs=blobs, seal=seal)
        self._rendezvous = rendezvous = Rendezvous(
            life.hooks,
            life.cell,
            limit_s=self._context.options.align_timeout,
            wanted=lambda: self._context.state.state.state == "running" and self._requests.dump("hook"),
        )
        context = DumpContext(
            store=self._context.store,
            run=life.run,
            criu=self._context.criu,
            cell=life.cell,
            tracker=tracker,
            keeper=self._context.keeper,
            options=self._context.options,
            runtime=self._context.runtime,
            rendezvous=rendezvous,
        )
        return Watcher(
            cell=life.cell,
            dumper=Dumper(context),
            requests=self._requests,
            store=self._context.store,
            state=self._context.state,
            events=self._context.events,
            reporter=self._context.reporter,
            options=self._context.options,
            schedule=schedule,
            foresight=None if life.snapshot else Foresight(self._context.events, self._context.reporter),
            vigil=vigil,
            rendezvous=rendezvous,
        )

    def _told_by_hooks(self) -> Told:
        return self._rendezvous.told() if self._rendezvous is not None else NOTHING

    def _follow_output(self, start: int) -> OutputFollower | None:
        try:
            return OutputFollower(self._context.store.layout.output_log, start)
        except OSError as error:
            self._context.reporter.warning(
                f"the training's output can't be shown live: {error.strerror}",
                f"it is all in {self._context.store.layout.output_log}; too many inotify watches on this machine?",
            )
            return None


def _shown_so_far(output: Path, life: Life) -> int:
    """Bytes of output.log: those at the cut, since what was written after a restore is still to be shown; of an adopted
    training all that there are, since nobody knows what its supervisor had shown."""
    if life.adopted:
        return output.stat().st_size if output.exists() else 0
    entries = life.listing.entries if life.listing else ()
    return next((entry.size for entry in entries if entry.path == str(output)), 0)
