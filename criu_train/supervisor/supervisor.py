"""The supervisor of one run: restore or start cold, watch, restart when the training dies, end with its exit code."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from criu_train.cell import processes
from criu_train.cell.records import Ended
from criu_train.criu.find import Criu
from criu_train.criu.schema import image_schema
from criu_train.errors import CriuTrainError
from criu_train.progress.line import NOTHING, Told
from criu_train.store.lock import StoreLock
from criu_train.store.store import Store
from criu_train.supervisor.adopting import Orphan, door_of
from criu_train.supervisor.beginning import Beginner, Life
from criu_train.supervisor.cause import describe_end
from criu_train.supervisor.control import ControlServer
from criu_train.supervisor.dump_context import DumpContext
from criu_train.supervisor.dumping import Dumper
from criu_train.supervisor.foreseeing import Foresight
from criu_train.supervisor.gauge import Gauge
from criu_train.supervisor.hook_files import close
from criu_train.supervisor.keeper import Keeper
from criu_train.supervisor.memory import give_large_blocks_back
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.outlets import Outlets
from criu_train.supervisor.output import OutputFollower, our_terminal_size
from criu_train.supervisor.planning import Planner
from criu_train.supervisor.progress import Progress
from criu_train.supervisor.recording import Recorder
from criu_train.supervisor.rendezvous import Rendezvous
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.requests import Requests, signals_become
from criu_train.supervisor.schedule import Schedule
from criu_train.supervisor.standstill import Standstills
from criu_train.supervisor.start import Start, restorable
from criu_train.supervisor.state import State, StateFile, boot_id
from criu_train.supervisor.vigil import Vigil
from criu_train.supervisor.watching import Outcome, Watcher
from criu_train.units import seconds_until
from criu_train.workspace.tracker import Tracker

# Between two looks at the training's progress, where it decides about dumps.
_LOOK_S = 0.25
_BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 60.0)


class Supervisor:
    """Holds the pieces of one watch together. Everything that touches a person goes through ``reporter``.

    ``before``: the state of the training that is to be adopted.
    """

    def __init__(
        self,
        *,
        store: Store,
        lock: StoreLock,
        criu: Criu,
        options: RunOptions,
        reporter: Reporter,
        runtime: Path,
        outlets: Outlets,
        before: State | None = None,
    ) -> None:
        self._store = store
        self._lock = lock
        self._criu = criu
        self._options = options
        self._reporter = reporter
        self._runtime = runtime
        self._events = outlets.events
        self._requests = Requests()
        self._rendezvous: Rendezvous | None = None
        self._gauge = Gauge(store.layout.output_log, options.progress_regex, overlay=self._told_by_hooks)
        self._planner = Planner(options, self._events)
        outlets.show(self._gauge)
        self._keeper = Keeper(runtime, options.memory_limit, store.seal)
        self._progress = Progress()
        self._standstills = Standstills(store, options.progress_limit, self._events, reporter)
        self._left_of_interval = seconds_until(before.next_dump_at) if before and before.next_dump_at else None
        image_schema(criu.pycriu)  # a missing or broken one is told before anything runs
        pid = os.getpid()
        self._state = StateFile(
            store.layout.supervisor,
            replace(
                before or State(),
                supervisor_pid=pid,
                supervisor_started=processes.start_time(pid),
                boot_id=boot_id(),
                control=str(runtime / f"{store.id}.sock"),
                next_dump_at=None,
            ),
        )
        self._beginner = Beginner(
            store=store,
            lock=lock,
            criu=criu,
            keeper=self._keeper,
            options=options,
            runtime=runtime,
            state=self._state,
            events=self._events,
            reporter=reporter,
        )

    async def supervise(self, start: Start | Orphan) -> int:
        """From start, or from a training that was found running, to end. Returns the exit code for our own process."""
        give_large_blocks_back()
        exit_code = 125
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(signals_become(self._requests))
                await stack.enter_async_context(self._keeper)
                self._keeper.warm_up()
                await stack.enter_async_context(ControlServer(Path(str(self._state.state.control)), self._answer))
                exit_code = await self._restart_until_done(start)
            return exit_code
        except CriuTrainError as error:
            exit_code = error.exit_code
            raise
        finally:
            # If a mistake of ours has ended the watch, the training lives on under init: others must find it.
            if self._state.state.cell_alive():
                self._state.change(state="lost", next_dump_at=None)
            else:
                gone = {"init_pid": None, "root_pid": None, "next_dump_at": None}
                self._state.change(state="finished", exit_code=exit_code, **gone)
                door_of(self._store, self._runtime).unlink(missing_ok=True)

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("ask") != "dump":
            return {"error": "unknown request", "tip": "is this the same version of criu-train?"}
        result = await asyncio.shield(self._requests.dump("manual"))
        if isinstance(result, CriuTrainError):
            return {"error": str(result), "tip": result.tip}
        return {"id": result.id}

    # --- one start after another -------------------------------------------------------------------------------

    async def _restart_until_done(self, start: Start | Orphan) -> int:
        deaths = 0
        while True:
            life = self._beginner.adopt(start) if isinstance(start, Orphan) else await self._begin(start)
            if life is None:
                return self._stopped("interrupted while beginning")
            outcome = await self._watch(
                life, self._standstills.vigil(life, may_restart=deaths < self._options.max_restarts)
            )
            if outcome.how == "stood_still":
                if self._requests.stop_signal is not None:
                    return self._stopped("between two restarts")
                deaths += 1
                self._state.change(restarts=self._state.state.restarts + 1, init_pid=None, root_pid=None)
                candidates = self._standstills.candidates
                start = Start(life.run.command, life.run.cwd, life.run, candidates, "the training stood still")
                continue
            if (exit_code := self._final_exit_code(outcome)) is not None:
                return exit_code
            deaths = 1 if self._progress.made(life, outcome) else deaths + 1
            snapshots = tuple(s for s in restorable(self._store, life.run) if s.status == "complete")
            # One older each time; when there is none older any more, the oldest again.
            candidates = snapshots[deaths - 1 :] or snapshots[-1:]
            if not candidates or deaths > self._options.max_restarts or self._requests.stop_signal is not None:
                return self._give_up(outcome.ended, has_snapshots=bool(candidates))
            await self._back_off(deaths, outcome.ended)
            if self._requests.stop_signal is not None:
                return self._stopped("between two restarts")
            start = Start(life.run.command, life.run.cwd, life.run, candidates, "the training died")

    def _final_exit_code(self, outcome: Outcome) -> int | None:
        ended = outcome.ended
        if outcome.how == "ended" and ended.code != 0:
            return None
        if outcome.how == "ended":
            self._write_down_the_end(ended)
            self._events.append("finished", exit_code=ended.exit_code)
            self._reporter.ended(ended)
            return 0
        return self._stopped(outcome.how)

    def _write_down_the_end(self, ended: Ended) -> None:
        try:
            self._store.finish_run(ended.exit_code, describe_end(ended))
        except (OSError, CriuTrainError) as error:  # a full disk does not change that the training ended well
            tip = "free some space; the same command would go on from the newest snapshot"
            self._reporter.warning(f"that the training has ended could not be written down: {error}", tip)

    def _stopped(self, how: str) -> int:
        assert self._requests.stop_signal is not None
        self._events.append("stopped", how=how, signal=self._requests.stop_signal.name)
        return 128 + self._requests.stop_signal

    async def _begin(self, start: Start) -> Life | None:
        """None when asked to stop and the restore does not come to its end within the grace."""
        beginning = asyncio.ensure_future(self._beginner.begin(start))
        if await self._requests.patiently(beginning, self._options.grace):
            return beginning.result()
        beginning.cancel()
        await asyncio.wait({beginning})
        # It may have come to its end just then; the watch sees the wish to stop.
        return None if beginning.cancelled() else beginning.result()

    def _give_up(self, ended: Ended, *, has_snapshots: bool) -> int:
        self._events.append("gave_up", reason=describe_end(ended), exit_code=ended.exit_code)
        self._reporter.ended(ended)
        if has_snapshots:
            self._reporter.warning(
                "the training died again and again without progress",
                "its output above tells why; the same command tries again from the newest snapshot",
            )
        return ended.exit_code

    async def _back_off(self, deaths: int, ended: Ended) -> None:
        seconds = _BACKOFF_S[min(deaths, len(_BACKOFF_S)) - 1]
        self._state.change(state="backoff", restarts=self._state.state.restarts + 1, init_pid=None, root_pid=None)
        self._events.append("died", reason=describe_end(ended), exit_code=ended.exit_code, backoff_s=seconds)
        self._reporter.interrupted(describe_end(ended))
        self._reporter.backoff(seconds, deaths, self._options.max_restarts)
        until = time.monotonic() + seconds
        while self._requests.stop_signal is None and (left := until - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._requests.news(), left)
            except TimeoutError:
                return

    # --- watch --------------------------------------------------------------------------------------------------

    async def _watch(self, life: Life, vigil: Vigil | None) -> Outcome:
        cell, output = life.cell, self._store.layout.output_log
        try:
            schedule = self._planner.schedule(life, lambda: self._gauge.told, self._left_of_interval)
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
            async with Recorder(self._gauge, self._events, life.run.started_at, look_s=_LOOK_S if decides else None):
                outcome = await watcher.watch()
            await cell.close()
            return outcome
        finally:
            close(life.hooks, remove=cell.ended.done())
            if follower is not None:
                await asyncio.to_thread(follower.stop)

    def _watcher(self, life: Life, schedule: Schedule, vigil: Vigil | None) -> Watcher:
        blobs = life.snapshot.files if life.snapshot else None
        policy, seal = self._beginner.policy(life.run), self._store.seal
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
