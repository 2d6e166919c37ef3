"""The supervisor of one run: restore or start cold, watch, restart when the training dies, end with its exit code."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from criu_train.cell import processes
from criu_train.cell.cell import Cell
from criu_train.cell.records import CellSpec, Ended
from criu_train.criu.find import Criu
from criu_train.errors import CommandNotRunnableError, CriuTrainError, RestoreFailedError
from criu_train.store.events import EventLog
from criu_train.store.lock import StoreLock
from criu_train.store.snapshot import Snapshot
from criu_train.store.state import Run
from criu_train.store.store import Store
from criu_train.supervisor.cause import describe_end
from criu_train.supervisor.control import ControlServer
from criu_train.supervisor.dumping import Dumper
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.output import OutputFollower
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.requests import Requests, signals_become
from criu_train.supervisor.restoring import Restored, Restorer
from criu_train.supervisor.start import Start, restorable
from criu_train.supervisor.state import State, StateFile, boot_id
from criu_train.supervisor.user import UserIds
from criu_train.supervisor.watching import Outcome, Watcher
from criu_train.workspace.rollback import set_aside
from criu_train.workspace.tracker import Tracker, WorkspacePolicy

_BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 60.0)


class Supervisor:
    """Holds the pieces of one watch together. Everything that touches a person goes through ``reporter``."""

    def __init__(
        self, *, store: Store, lock: StoreLock, criu: Criu, options: RunOptions, reporter: Reporter, runtime: Path
    ) -> None:
        self._store = store
        self._lock = lock
        self._criu = criu
        self._options = options
        self._reporter = reporter
        self._runtime = runtime
        self._events = EventLog(store.layout.events)
        self._requests = Requests()
        self._run: Run | None = None
        self._journal: Path | None = None
        self._user = UserIds.of(options.user) if options.user else None
        pid = os.getpid()
        self._state = StateFile(
            store.layout.supervisor,
            State(
                supervisor_pid=pid,
                supervisor_started=processes.start_time(pid),
                boot_id=boot_id(),
                control=str(runtime / f"{store.id}.sock"),
            ),
        )

    async def supervise(self, start: Start) -> int:
        """From start to end. Returns the exit code for our own process."""
        exit_code = 125
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(signals_become(self._requests))
                await stack.enter_async_context(ControlServer(Path(str(self._state.state.control)), self._answer))
                exit_code = await self._restart_until_done(start)
            return exit_code
        except CriuTrainError as error:
            exit_code = error.exit_code
            raise
        finally:
            self._state.change(state="finished", exit_code=exit_code, next_dump_at=None, init_pid=None, root_pid=None)

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("ask") != "dump":
            return {"error": "unknown request", "tip": "is this the same version of criu-train?"}
        result = await asyncio.shield(self._requests.dump("manual"))
        if isinstance(result, CriuTrainError):
            return {"error": str(result), "tip": result.tip}
        return {"id": result.id}

    # --- one start after another -------------------------------------------------------------------------------

    async def _restart_until_done(self, start: Start) -> int:
        deaths = 0
        while True:
            cell, restored, cold = await self._begin(start)
            outcome = await self._watch(cell, restored)
            if (exit_code := self._final_exit_code(outcome)) is not None:
                return exit_code
            deaths = 1 if outcome.new_snapshots else deaths + 1
            candidates = self._candidates(skip=deaths - 1)
            if not candidates and not cold:
                candidates = self._candidates(skip=0)[-1:]
            if not candidates or deaths > self._options.max_restarts or self._requests.stop_signal is not None:
                return self._give_up(outcome.ended, has_snapshots=bool(candidates))
            await self._back_off(deaths, outcome.ended)
            if self._requests.stop_signal is not None:
                return 128 + self._requests.stop_signal
            start = Start(start.command, start.cwd, self._run, candidates, "the training died")

    def _final_exit_code(self, outcome: Outcome) -> int | None:
        ended = outcome.ended
        if outcome.how == "ended" and ended.code != 0:
            return None
        if outcome.how == "ended":
            self._store.finish_run(ended.exit_code, describe_end(ended))
            self._events.append("finished", exit_code=ended.exit_code)
            self._reporter.ended(ended)
            return 0
        assert self._requests.stop_signal is not None
        self._events.append("stopped", how=outcome.how, signal=self._requests.stop_signal.name)
        return 128 + self._requests.stop_signal

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

    def _candidates(self, skip: int) -> tuple[Snapshot, ...]:
        assert self._run is not None
        return restorable(self._store, self._run)[skip:]

    # --- begin: restore, else cold ----------------------------------------------------------------------------

    async def _begin(self, start: Start) -> tuple[Cell, Restored | None, bool]:
        if start.run is not None and start.candidates:
            self._run = start.run
            self._state.change(state="restoring", run=start.run.id)
            restorer = Restorer(
                store=self._store,
                criu=self._criu,
                options=self._options,
                runtime=self._runtime,
                new_cell=self._new_cell,
            )
            restored = await restorer.restore_first_that_works(start.candidates)
            self._events.append("restore", attempts=[vars(attempt) for attempt in restorer.attempts])
            if restored is not None:
                self._reporter.attempts(restorer.attempts)
                self._reporter.restored(restored.snapshot, restored.rollback_summary, restored.warnings)
                self._events.append("restored", snapshot=restored.snapshot.id, warnings=list(restored.warnings))
                self._running(restored.cell, restored.snapshot.id)
                return restored.cell, restored, False
            self._reporter.attempts(restorer.attempts)
            if self._options.on_restore_failure == "fail":
                raise RestoreFailedError(
                    "no snapshot could be restored",
                    tip="mend what the table names and run again, or start over with --fresh",
                )
            start = Start(start.command, start.cwd, None, (), "no snapshot could be restored")
        return await self._start_cold(start), None, True

    async def _start_cold(self, start: Start) -> Cell:
        self._reporter.cold_start(start.reason)
        layout = self._store.layout
        set_aside([layout.output_log], layout.rollback)
        self._run = self._store.begin_run(start.command, start.cwd)
        self._state.change(state="starting", run=self._run.id, restored_from=None)
        cell = await self._new_cell()
        try:
            await cell.launch(
                start.command,
                output=layout.output_log,
                first_pid=self._store.pid_base,
                ids=self._user.ids if self._user else None,
                environment=self._user.environment if self._user else None,
            )
        except CommandNotRunnableError:
            await cell.kill()
            self._store.forget_run()
            self._state.change(run=None)
            raise
        self._events.append("started", run=self._run.id, command=list(start.command), reason=start.reason)
        self._running(cell, None)
        return cell

    def _running(self, cell: Cell, restored_from: str | None) -> None:
        self._state.change(state="running", root_pid=cell.root_pid, restored_from=restored_from)
        if cell.watch_problem:
            self._reporter.warning(
                f"what the training does to files can't be watched ({cell.watch_problem})",
                "the working directory is listed at every dump instead; name others with --workspace",
            )

    async def _new_cell(self) -> Cell:
        assert self._run is not None
        layout = self._store.layout
        layout.cell.unlink(missing_ok=True)
        self._journal = self._store.next_journal()
        cell = await Cell.start(
            CellSpec(
                lock_fd=self._lock.fd,
                cell_file=layout.cell,
                journal=self._journal,
                roots=self._roots(),
                exclude=(str(layout.root),),
                include=(str(layout.output_log),),
                facts={"run": self._run.id, "boot_id": boot_id()},
                log=layout.root / "init.log",
            )
        )
        self._state.change(init_pid=cell.init_pid, init_started=processes.start_time(cell.init_pid))
        return cell

    def _roots(self) -> tuple[str, ...]:
        assert self._run is not None
        return (self._run.cwd, *(str(path) for path in self._options.workspace))

    # --- watch --------------------------------------------------------------------------------------------------

    async def _watch(self, cell: Cell, restored: Restored | None) -> Outcome:
        assert self._run is not None and self._journal is not None
        layout = self._store.layout
        tracker = Tracker(
            WorkspacePolicy(
                roots=self._roots(),
                exclude=(str(layout.root),),
                include=(str(layout.output_log),),
                file_limit=self._options.file_limit,
            ),
            restored.listing if restored else None,
            self._journal,
            blobs=restored.snapshot.files if restored else None,
        )
        dumper = Dumper(
            store=self._store,
            run=self._run,
            criu=self._criu,
            cell=cell,
            tracker=tracker,
            options=self._options,
            runtime=self._runtime,
        )
        watcher = Watcher(
            cell=cell,
            dumper=dumper,
            requests=self._requests,
            store=self._store,
            state=self._state,
            events=self._events,
            reporter=self._reporter,
            options=self._options,
        )
        self._reporter.started(os.getpid(), self._options.every)
        follower = OutputFollower(layout.output_log, layout.output_log.stat().st_size if restored else 0)
        try:
            outcome = await watcher.watch()
            await cell.close()
        except BaseException:
            await cell.kill()
            raise
        finally:
            await asyncio.to_thread(follower.stop)
        return outcome
