"""One try at a dump: from the request to a snapshot that is marked complete, or to a failure that is told.

The order of things, and where the tree stands still:

1. memory for the capture is made ready and what changed in the workspace so far is copied (the tree runs);
2. CRIU freezes the tree, streams the images into that memory, and asks for the cut;
3. the little that changed since is copied (frozen; with ``leave_running=False`` the snapshot is also finished here);
4. the tree goes on; the capture is packed, everything is made durable, COMPLETE is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from contextlib import AsyncExitStack
from pathlib import Path

from criu_train.archive.archivist import Archivist
from criu_train.cell.processes import dumpable_bytes
from criu_train.cell.records import CriuExit, Cut
from criu_train.criu.apart import refuse_tasks_apart
from criu_train.criu.images import Images
from criu_train.criu.unread import unread
from criu_train.errors import DumpFailedError
from criu_train.moments import reached
from criu_train.store.draft import Draft
from criu_train.supervisor.criu_at_work import CriuAtWork
from criu_train.supervisor.devices import Devices
from criu_train.supervisor.dump_context import DumpContext, Dumped, left
from criu_train.supervisor.dump_errors import PassingFailureError, TrainingEndedError, read_log
from criu_train.supervisor.machine_lock import machine_lock
from criu_train.supervisor.publishing import Findings, publish
from criu_train.supervisor.room import check_room
from criu_train.supervisor.surveying import LAST_LIMIT_S, LIMIT_S, survey_in_time
from criu_train.supervisor.vigil import at_work

# The longest that a tree stands still for its last snapshot, where no deadline was given.
_FROZEN_S = 600.0
# Of the time that is left before a deadline: the rest is for making everything durable and letting the tree go.
_PACKING_SHARE = 0.7
# Of a time that is short, for finding a moment between two steps.
_ALIGNING_SHARE = 0.25
# For packing while the training waits for it: at full speed, and no worse compressed.
_AWAITED_S = 3600.0
# What CRIU may take for each GiB of memory beside its time limit.
_LIMIT_PER_GIB_S = 20.0
# The end of the training may be told a moment after CRIU has stumbled over it.
_END_IS_TOLD_S = 0.2


class Attempt:
    """Used once. ``patient``: fails rather than lose what waits to be read; there will be another try.

    ``at_work``: None to look whether the training is.
    """

    def __init__(
        self, context: DumpContext, trigger: str, *, leave_running: bool, patient: bool, at_work: bool | None
    ) -> None:
        self._context = context
        self._trigger = trigger
        self._leave_running = leave_running
        self._patient = patient
        self._found = Findings(at_work=at_work)
        self._draft: Draft | None = None
        self._devices = Devices(context.cell, context.store.layout.root)
        self._archivist: Archivist | None = None
        self._deadline: float | None = None
        self._done_by: float | None = None
        self._packing = False
        self._cut_error: Exception | None = None
        self._pids: list[int] = []
        self._earlier: list[Path] = []
        self._dumped: Dumped | None = None
        self._criu_was_killed = False  # and may have taken the tree along: that is a failure to be told

    @property
    def unread(self) -> str:
        """What waited to be read at the cut, and is lost."""
        return self._found.unread

    def hurry(self, done_by: float) -> None:
        """Be done by this time (monotonic), whatever that costs the training."""
        self._done_by = done_by
        if self._packing:
            self._context.keeper.hurry(max(0.0, done_by - time.monotonic()))

    async def run(self, deadline: float | None) -> Dumped:
        """``deadline``: on the monotonic clock, when everything must be done; None for the usual limit of CRIU."""
        context = self._context
        self._deadline = deadline
        self._pids = context.cell.tree()
        self._refuse_tasks_apart()
        await self._devices.look(self._pids)
        memory = self._devices.bytes + await asyncio.to_thread(dumpable_bytes, self._pids)
        self._archivist = await context.keeper.archivist()
        arena = await self._archivist.prepare(memory)
        self._devices.check_memory()
        self._earlier = await asyncio.to_thread(check_room, context.store, max(0, memory - arena))
        self._draft = draft = context.store.new_draft(context.run.id, self._trigger)
        reached("dump-begins")
        try:
            await context.cell.sync_journal()
            precopy = asyncio.to_thread(context.tracker.precopy, self._pids, draft.files)
            limit_s = LIMIT_S if self._leave_running else LAST_LIMIT_S
            looking = survey_in_time(self._pids, context.run, self._earlier, limit_s)
            working = at_work(self._pids, self._found.at_work)
            _, self._found.environment, self._found.at_work = await asyncio.gather(precopy, looking, working)
            reached("dump-copied")
            usual_s = context.options.dump_timeout + _LIMIT_PER_GIB_S * memory / (1 << 30)
            ended = await self._run_criu(draft, self._archivist, usual_s)
            reached("dump-thawed")
            if self._dumped is not None:
                return self._dumped
            dumped = await self._finish(draft, ended)
            context.rendezvous.settle(self._found.meeting)
            return dumped
        except BaseException as error:
            if self._dumped is not None:
                return self._dumped  # complete since the cut, whatever became of CRIU and the tree afterwards
            if not isinstance(error, PassingFailureError):
                context.rendezvous.settle(self._found.meeting, str(error))
            await self._archivist.drop()
            if not self._criu_was_killed and await self._just_ended():
                draft.remove()
                raise TrainingEndedError(
                    "the training ended during the dump", tip="there is nothing left to dump"
                ) from error
            if isinstance(error, PassingFailureError):
                draft.remove()
            else:
                draft.discard(str(error))
            raise
        finally:
            self._devices.end_the_stuck()

    def _refuse_tasks_apart(self) -> None:
        try:
            refuse_tasks_apart(self._pids)
        except DumpFailedError as error:  # a sandbox that lives for a moment is gone at the next try
            raise PassingFailureError(str(error), tip=error.tip) from error

    async def _just_ended(self) -> bool:
        """Whether the dump failed because there is no training any more; its end may be told a moment later."""
        ended = self._context.cell.ended
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ended), _END_IS_TOLD_S)
        return ended.done()

    async def _run_criu(self, draft: Draft, archivist: Archivist, usual_s: float) -> CriuExit:
        context, deadline = self._context, self._deadline
        criu = CriuAtWork(context, draft, archivist, self._devices, leave_running=self._leave_running)
        try:
            async with AsyncExitStack() as stack:
                lock = machine_lock(context.runtime, left(deadline, usual_s))
                aligning_s = math.inf if deadline is None else _ALIGNING_SHARE * left(deadline, usual_s)
                meeting = context.rendezvous.meeting(draft.path.name, aligning_s)
                if self._leave_running:  # who is parked is not to wait for other jobs
                    await stack.enter_async_context(lock)
                    self._found.meeting = await stack.enter_async_context(meeting)
                else:  # other jobs that have to end as well are not to wait for who parks
                    self._found.meeting = await stack.enter_async_context(meeting)
                    await stack.enter_async_context(lock)
                self._pids = context.cell.tree()
                try:
                    ended = await criu.dump(self._pids, self._at_cut, usual_s=usual_s, deadline=deadline)
                finally:
                    self._criu_was_killed = criu.was_killed
                if self._dumped is None and (ended.code != 0 or self._found.cut is None):
                    raise await criu.why_it_failed(ended, self._cut_error)
                return ended
        except TimeoutError as error:
            raise DumpFailedError(
                "another job's dump or restore kept this one waiting too long",
                tip="the next dump is tried at the next interval",
            ) from error

    # --- the tree stands still ----------------------------------------------------------------------------------

    async def _at_cut(self, cut: Cut) -> bool:
        assert self._draft is not None and self._archivist is not None
        try:
            reached("dump-frozen")
            self._found.captured = await self._archivist.captured(self._draft.images)
            reached("dump-captured")
            self._look_for_unread(self._draft)
            self._context.rendezvous.confirm(self._found.meeting)
            with contextlib.suppress(Exception):  # no snapshot is lost for want of something that only explains
                self._found.told = self._context.rendezvous.told()
            await asyncio.to_thread(self._save_workspace, self._draft)
            reached("dump-saved")
            self._found.cut = cut
            if not self._leave_running:
                async with asyncio.timeout(left(self._deadline, _FROZEN_S)):
                    self._dumped = await self._finish(self._draft, None)
        except Exception as error:  # the tree is frozen: whatever went wrong, it must go on
            self._cut_error = error
            return False
        return True

    def _look_for_unread(self, draft: Draft) -> None:
        self._found.unread = unread(read_log(draft.dump_log))
        if self.unread and self._patient:
            raise PassingFailureError(
                f"{self.unread} were just waiting to be read, which CRIU doesn't save",
                tip="this passes by itself, the next dump will do",
            )

    def _save_workspace(self, draft: Draft) -> None:
        self._pids = self._context.cell.tree()
        self._refuse_tasks_apart()
        remaps = Images(draft.images, self._context.criu.pycriu, draft.read_image).link_remaps()
        self._context.tracker.cut(self._pids, draft.files, [(r.remap_path, r.original) for r in remaps])

    # --- the tree runs again ------------------------------------------------------------------------------------

    async def _finish(self, draft: Draft, ended: CriuExit | None) -> Dumped:
        context, archivist = self._context, self._archivist
        assert archivist is not None
        listing = await asyncio.to_thread(context.tracker.finish, draft.files)
        deadline_s = None
        if ended is None:  # a tree that stands still has no use for the processors, and waits
            deadline_s = _PACKING_SHARE * left(self._deadline, context.options.grace)
        elif self._done_by is not None:
            deadline_s = max(0.0, self._done_by - time.monotonic())
        elif context.rendezvous.is_awaited():
            archivist.hurry(_AWAITED_S)
        self._packing = True
        await archivist.pack(draft.path, self._earlier, deadline_s=deadline_s)
        self._packing = False
        reached("dump-packed")
        return await asyncio.to_thread(
            publish, context, draft, listing, found=self._found, devices=self._devices, ended=ended
        )
