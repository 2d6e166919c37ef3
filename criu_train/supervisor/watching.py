"""Watching over one living cell: dumps when they are due, until the training ends or we are asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from criu_train.cell.cell import Cell
from criu_train.cell.records import Ended
from criu_train.errors import CriuTrainError, DumpFailedError
from criu_train.store.events import EventLog
from criu_train.store.snapshot import Snapshot
from criu_train.store.store import Store
from criu_train.supervisor.describing import event_of, pause_of, told_in
from criu_train.supervisor.dump_context import Dumped
from criu_train.supervisor.dump_errors import TrainingEndedError
from criu_train.supervisor.dumping import Dumper
from criu_train.supervisor.foreseeing import Foresight
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.prover import Prover
from criu_train.supervisor.rendezvous import Rendezvous
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.requests import Requests, WantedDump
from criu_train.supervisor.schedule import Schedule
from criu_train.supervisor.state import StateFile
from criu_train.supervisor.vigil import Vigil
from criu_train.workspace.rollback import forget_old

# What a rollback took away is kept for a week, and the last ten times whatever their age.
_KEPT_S, _KEPT_ROLLBACKS = 7 * 86400.0, 10
_AN_HOUR_S = 3600.0
# What a dump that was given up gets to mend what it has begun.
_LATE_S = 10.0
# Of the grace, for a snapshot that is being packed when we are asked to stop; the rest is for the last dump.
_HURRY_SHARE = 0.3


How = Literal["ended", "preempted", "terminated", "killed", "stood_still"]


@dataclass(frozen=True)
class Outcome:
    """Why the cell is gone: the training ended by itself, or we stopped it."""

    how: How
    ended: Ended
    lived_s: float
    snapshots: tuple[tuple[str, float], ...]  # ids, and how long this life had lasted at each


class Watcher:
    """One cell's life. ``state`` and ``events`` tell the outside. ``foresight``: None where there is nothing to try.

    ``vigil``: over a restored training, which has to move before its snapshots replace older ones.
    """

    def __init__(
        self,
        *,
        cell: Cell,
        dumper: Dumper,
        requests: Requests,
        store: Store,
        state: StateFile,
        events: EventLog,
        reporter: Reporter,
        options: RunOptions,
        schedule: Schedule,
        foresight: Foresight | None = None,
        vigil: Vigil | None = None,
        rendezvous: Rendezvous | None = None,
    ) -> None:
        self._cell = cell
        self._dumper = dumper
        self._requests = requests
        self._store = store
        self._state = state
        self._events = events
        self._reporter = reporter
        self._options = options
        self._began = time.monotonic()
        self._snapshots: list[tuple[str, float]] = []
        self._schedule = schedule
        self._prover = Prover(store, options.prove, events, reporter)
        self._foresight = foresight
        self._vigil = vigil or Vigil()
        self._rendezvous = rendezvous or Rendezvous(None, cell, limit_s=0)
        self._earlier: frozenset[str] = frozenset()
        self._skipped = False
        self._late: asyncio.Future[Any] | None = None

    async def watch(self) -> Outcome:
        """Returns when the cell's training is gone. The cell itself still has to be closed."""
        meeting = asyncio.ensure_future(self._rendezvous.watch())
        try:
            return await self._watch()
        finally:
            meeting.cancel()
            await self._prover.stop()

    async def _watch(self) -> Outcome:
        self._tell_schedule()
        await self._vigil.look()
        if not self._vigil.is_over:
            with contextlib.suppress(Exception):  # then none goes for the time being
                self._earlier = await asyncio.to_thread(self._store.kept, self._options.keep + 1)
        while not self._cell.ended.done():
            if self._requests.stop_signal is not None:
                return await self._stop()
            if (wanted := self._requests.take_dump()) is not None:
                if not await self._serve(wanted):
                    return await self._kill()
                continue
            if self._vigil.is_to_be_ended():
                return await self._kill("stood_still")
            await self._wait_for_something()
        return self._outcome("ended")

    async def _serve(self, wanted: WantedDump) -> bool:
        """One dump; False when asked to stop and the dump does not come to its end within the grace."""
        began = time.monotonic()
        dump = asyncio.ensure_future(self._dump(wanted.trigger))
        hurry = asyncio.ensure_future(self._hurry_when_it_ends())
        in_time = await self._requests.patiently(dump, self._options.grace)
        hurry.cancel()
        if not in_time:
            self._late = dump
            wanted.done.set_result(DumpFailedError("the training was stopped", tip="run the same command to go on"))
            return False
        wanted.done.set_result(result := dump.result())
        told = result.manifest if isinstance(result, Snapshot) else None
        self._schedule.dumped(began, *((told_in(told), pause_of(told)) if told else ()))
        self._tell_schedule()
        return True

    async def _hurry_when_it_ends(self) -> None:
        """Once the training has ended or is to stop, there is nobody to be spared, and another dump may have to fit."""
        stop = asyncio.ensure_future(self._requests.stop_wanted.wait())
        try:
            waits: set[asyncio.Future[Any]] = {self._cell.ended, stop}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            self._dumper.hurry(max(1.0, _HURRY_SHARE * self._options.grace))
        finally:
            stop.cancel()

    def _outcome(self, how: How) -> Outcome:
        self._requests.refuse_dumps(DumpFailedError("the training has ended", tip="there is nothing left to dump"))
        lived = time.monotonic() - self._began
        return Outcome(how, self._cell.ended.result(), lived, tuple(self._snapshots))

    def _tell_schedule(self) -> None:
        left = self._schedule.left
        due_at = datetime.now(UTC) + timedelta(seconds=left) if left is not None else None
        self._state.change(state="running", next_dump_at=due_at.strftime("%Y-%m-%dT%H:%M:%SZ") if due_at else None)

    async def _wait_for_something(self) -> None:
        news = asyncio.ensure_future(self._requests.news())
        waits: set[asyncio.Future[Any]] = {news, self._cell.ended}
        pauses = [one for one in (self._schedule.pause_s, self._vigil.pause_s) if one is not None]
        done, _ = await asyncio.wait(waits, timeout=min(pauses, default=None), return_when=asyncio.FIRST_COMPLETED)
        if not news.done():
            news.cancel()
        await self._vigil.look()
        if done or (trigger := self._schedule.due_now()) is None:
            return
        if self._vigil.stands_still:
            self._skip_dump(trigger)
        else:
            self._requests.dump(trigger)

    def _skip_dump(self, trigger: str) -> None:
        """It would be like the snapshot that was restored, and in the end there would be no other ones."""
        self._schedule.dumped(time.monotonic())
        self._tell_schedule()
        if not self._skipped:
            self._skipped = True
            self._events.append("dump_skipped", trigger=trigger)
            self._reporter.warning(
                "no snapshot is taken by the timer before the training moves, it has stood still since its restore",
                "criu-train dump takes one all the same",
            )

    # --- dumps --------------------------------------------------------------------------------------------------

    async def _dump(self, trigger: str) -> Snapshot | CriuTrainError:
        self._state.change(state="dumping", next_dump_at=None)
        if self._foresight is not None:
            await self._foresight.tell_once(self._cell.root_pid)
        began = time.monotonic()
        await self._vigil.look()
        try:
            # Who waits for this dump was at work until then.
            at_work = self._vigil.stands_still or trigger == "hook" or None
            dumped = await self._dumper.dump(trigger, at_work=at_work)
        except CriuTrainError as error:
            if not isinstance(error, TrainingEndedError):
                self._dump_failed(trigger, error)
            self._rendezvous.refuse(str(error))
            return error
        finally:
            await self._vigil.begin_anew()
        self._dump_succeeded(dumped, time.monotonic() - began)
        with contextlib.suppress(Exception):  # tidying up is worth no failure
            await asyncio.to_thread(self._tidy_up)
        return dumped.snapshot

    def _tidy_up(self) -> None:
        """Old snapshots, and what rollbacks kept that no restore of those left can want to know about."""
        if self._vigil.is_over:
            self._store.prune(self._options.keep)
        elif self._earlier:  # those that it may have to go back to stay until it surely moves
            self._store.prune(self._options.keep, self._earlier)
        oldest = min(datetime.fromisoformat(one.created_at) for one in self._store.snapshots())
        age_s = (datetime.now(UTC) - oldest).total_seconds() + _AN_HOUR_S
        forget_old(self._store.layout.rollback, older_than_s=max(_KEPT_S, age_s), keep=_KEPT_ROLLBACKS)

    def _dump_succeeded(self, dumped: Dumped, seconds: float) -> None:
        snapshot = dumped.snapshot
        self._snapshots.append((snapshot.id, time.monotonic() - self._began))
        self._state.change(last_snapshot=snapshot.id)
        self._events.append("dumped", **event_of(snapshot, seconds, dumped.notes))
        self._reporter.dumped(snapshot, seconds, dumped.notes)
        if self._requests.stop_signal is None:
            self._prover.take(snapshot)

    def _dump_failed(self, trigger: str, error: CriuTrainError) -> None:
        self._state.change(dumps_failed=self._state.state.dumps_failed + 1)
        details = "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else None
        self._events.append("dump_failed", trigger=trigger, reason=str(error), tip=error.tip, details=details)
        if trigger == "trial":
            self._reporter.trial_failed(error)
        else:
            self._reporter.dump_failed(error)

    # --- stopping ----------------------------------------------------------------------------------------------

    async def _stop(self) -> Outcome:
        """The last dump ends the training exactly at the cut; if it fails, the training is told to end itself."""
        number, grace = self._requests.stop_signal, self._options.grace
        assert number is not None
        self._state.change(state="stopping", next_dump_at=None)
        self._events.append("stopping", signal=number.name)
        left = self._requests.grace_left(grace)
        self._reporter.stopping(number, left)
        began = time.monotonic()
        # Some of the grace is kept for a training that has to end itself after all.
        limit_s = max(1.0, 0.8 * left)
        dump = self._dumper.dump(
            "preempt", leave_running=False, limit_s=limit_s, at_work=self._vigil.stands_still or None
        )
        last_dump = asyncio.ensure_future(dump)
        if not await self._requests.patiently(last_dump, self._options.grace):
            self._late = last_dump
            return await self._kill()
        try:
            dumped = last_dump.result()
        except TrainingEndedError:
            return self._outcome("ended")
        except CriuTrainError as error:
            self._dump_failed("preempt", error)
            self._rendezvous.refuse(str(error), for_good=True)
            return await self._terminate()
        self._dump_succeeded(dumped, time.monotonic() - began)
        await self._wait_for_the_end(max(1.0, self._requests.grace_left(grace)))
        return self._outcome("preempted")

    async def _terminate(self) -> Outcome:
        if (root := self._cell.root_pid) and not self._cell.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(root, signal.SIGTERM)
        await self._wait_for_the_end(self._requests.grace_left(self._options.grace))
        return self._outcome("terminated")

    async def _wait_for_the_end(self, seconds: float) -> None:
        """Until the training is gone: by itself within so many seconds, else killed."""
        kill = asyncio.ensure_future(self._requests.kill_now.wait())
        waits: set[asyncio.Future[Any]] = {self._cell.ended, kill}
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        kill.cancel()
        if not self._cell.ended.done():
            await self._cell.kill()

    async def _kill(self, how: How = "killed") -> Outcome:
        await self._cell.kill()
        if self._late is not None:
            self._dumper.abandon()
            # It is not cancelled: the packet rules of a CRIU that died have to be lifted first.
            await asyncio.wait({self._late}, timeout=_LATE_S)
        return self._outcome(how)
