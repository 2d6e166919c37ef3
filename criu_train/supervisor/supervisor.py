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
from criu_train.store.lock import StoreLock
from criu_train.store.store import Store
from criu_train.supervisor.adopting import Orphan, door_of
from criu_train.supervisor.beginning import Beginner, Life
from criu_train.supervisor.caretaker import Caretaker
from criu_train.supervisor.cause import describe_end
from criu_train.supervisor.control import ControlServer
from criu_train.supervisor.keeper import Keeper
from criu_train.supervisor.memory import give_large_blocks_back
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.outlets import Outlets
from criu_train.supervisor.progress import Progress
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.requests import Requests, signals_become
from criu_train.supervisor.restore_errors import SurroundingsError
from criu_train.supervisor.run_context import RunContext
from criu_train.supervisor.standstill import Standstills
from criu_train.supervisor.start import Start, restorable
from criu_train.supervisor.state import State, StateFile, boot_id
from criu_train.supervisor.watching import Outcome
from criu_train.units import format_duration, seconds_until

_BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 60.0)
# How long to wait for memory, a port, or what else kept every snapshot from being restored.
_PATIENCE_S = (5.0, 15.0, 60.0, 60.0, 60.0)


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
        self._options = options
        self._reporter = reporter
        self._runtime = runtime
        self._events = outlets.events
        self._requests = Requests()
        self._keeper = Keeper(runtime, options.memory_limit, store.seal)
        self._progress = Progress()
        self._standstills = Standstills(store, options.progress_limit, self._events, reporter)
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
        context = RunContext(
            store=store,
            criu=criu,
            keeper=self._keeper,
            options=options,
            runtime=runtime,
            state=self._state,
            events=self._events,
            reporter=reporter,
        )
        self._beginner = Beginner(context, lock)
        self._caretaker = Caretaker(
            context,
            self._requests,
            policy=self._beginner.policy,
            left_of_interval=seconds_until(before.next_dump_at) if before and before.next_dump_at else None,
        )
        outlets.show(self._caretaker.gauge)

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
            if isinstance(start, Orphan):
                life: Life | None = self._beginner.adopt(start)
            else:
                life = await self._begin_patiently(start) if deaths else await self._begin(start)
            if life is None:
                return self._stopped("interrupted while beginning")
            vigil = self._standstills.vigil(life, may_restart=deaths < self._options.max_restarts)
            outcome = await self._caretaker.watch(life, vigil)
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

    async def _begin_patiently(self, start: Start) -> Life | None:
        """As ``_begin``; nobody may be there to run the command again when what is in the way has gone."""
        for seconds in _PATIENCE_S:
            try:
                return await self._begin(start)
            except SurroundingsError as error:
                self._state.change(state="backoff", init_pid=None, root_pid=None)
                self._reporter.warning(f"{error}; it is tried again in {format_duration(seconds)}")
                await self._wait(seconds)
                if self._requests.stop_signal is not None:
                    return None
        return await self._begin(start)

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
        await self._wait(seconds)

    async def _wait(self, seconds: float) -> None:
        """Or until somebody asks for the end."""
        until = time.monotonic() + seconds
        while self._requests.stop_signal is None and (left := until - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._requests.news(), left)
            except TimeoutError:
                return
