"""Meeting a training that uses hooks between two of its steps, so that a dump falls there.

A *round* is one try: everybody is asked to park, everybody who has parked is asked to clean up, CRIU comes, and all go
on. Processes that work in step (DDP's ranks) stand still for ever if one of them parks a step before another, so they
are asked for a step that none of them has come to yet; one that has slipped through sends all on their way again, and
the next round asks for a later step. Nobody is waited for who has not reported for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from criu_train.cell.cell import Cell
from criu_train.errors import CriuTrainError
from criu_train.hooks.layout import NEXT_REPORT, Phase
from criu_train.progress.line import NOTHING, Told
from criu_train.store.manifest import HookFacts
from criu_train.supervisor.attendance import Attendance
from criu_train.supervisor.dump_errors import PassingFailureError
from criu_train.supervisor.hook_files import HookFiles
from criu_train.supervisor.hook_pages import MemberState

# Between two looks at the pages: while a meeting comes about, while hooks are used, while none are.
_LOOK_S, _POLL_S, _SLOW_POLL_S = 0.002, 0.1, 1.0
# Ranks are asked to park so many steps after the farthest of them, one try after the other, but not so soon that it
# could be there before it is told; a pace that is not known yet counts as fast.
_MARGINS, _MARGIN_S, _FAST = (1, 8, 64), 0.02, 4
# Ranks that work in step are never farther apart.
_IN_STEP = 2
# Steps that nobody makes: somebody reports something else.
_TOO_FAR = 1 << 62
# Who does not go on for so long while others are parked waits for them; longer where each comes by itself.
_STALLED_S, _STALLED_STEPS, _COMING_S = 0.5, 5, 2.0
# So long those who were in ``checkpoint`` may take to notice that it is over.
_NOTICED_S = 0.3


@dataclass
class Meeting:
    """What came of it. ``aligned``: None where no hooks are in use; ``parked_s``: how long the first one waited.

    ``digests``: of the state, by PID in the cell. ``late``: how many have not done in time what was to be done before.
    """

    round: int = 0
    aligned: bool | None = None
    parked_s: float = 0.0
    digests: Mapping[str, str] = field(default_factory=dict)
    late: int = 0


class Rendezvous:
    """Of one life. ``files``: None where there can be no hooks. ``wanted`` is called while somebody is in
    ``checkpoint`` and no dump is on its way; ``limit_s``: how long a dump is put off for a better moment."""

    def __init__(
        self,
        files: HookFiles | None,
        cell: Cell,
        *,
        limit_s: float,
        wanted: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._there = Attendance(files, cell, clock) if files is not None else None
        self._cell = cell
        self._limit_s = limit_s
        self._wanted = wanted
        self._clock = clock
        self._meeting = False
        self._met_at = -math.inf
        self._no_more = ""

    async def watch(self) -> None:
        """Give signs of life and hear who is in ``checkpoint``, until cancelled."""
        if self._files is None or self._there is None:
            return
        while True:
            self._files.beat()
            with contextlib.suppress(Exception):  # whatever a page says, signs of life go on
                self._there.look()
                if not self._meeting and self._clock() - self._met_at > _NOTICED_S:
                    self._hear(self._there)
            await asyncio.sleep(_POLL_S if self._there.known else _SLOW_POLL_S)

    def _hear(self, there: Attendance) -> None:
        if there.asking():
            if self._no_more:
                self._refuse(self._no_more)
            else:
                self._wanted()
        elif there.strays():
            self._refuse("this process is not in the training's tree, and in no snapshot")

    def told(self) -> Told:
        """What the members have reported last; of what several tell, the one with the lowest PID has the last word."""
        if self._files is None:
            return NOTHING
        told = NOTHING
        for _, member in sorted(self._files.members().items(), reverse=True):
            told = told.then(member.told)
        return told

    def is_awaited(self) -> bool:
        """Whether somebody makes no step before the snapshot is complete."""
        if self._files is None:
            return False
        awaiting = self._files.generation + 1
        return any(member.staying == awaiting for member in self._files.members().values())

    def facts(self, meeting: Meeting) -> HookFacts | None:
        """For the manifest."""
        if self._files is None:
            return None
        return HookFacts(str(self._files.directory), self._files.generation, self._files.round, meeting.digests)

    def refuse(self, problem: str, *, for_good: bool = False) -> None:
        """There will be no dump for those who are in ``checkpoint`` now; ``for_good``: nor for any later one."""
        self._no_more = problem if for_good else ""
        if self._there is not None:
            with contextlib.suppress(OSError):
                self._there.look()
                if self._there.asking():
                    self._refuse(problem)

    def _refuse(self, problem: str) -> None:
        assert self._files is not None
        self._files.begin(NEXT_REPORT, "")
        self._files.change(Phase.FAILED, problem=problem)
        self._met_at = self._clock()

    def settle(self, meeting: Meeting, problem: str | None = None) -> None:
        """The snapshot that came of it is complete, or has failed."""
        self._end(meeting, Phase.COMPLETE if problem is None else Phase.FAILED, problem or "")

    def confirm(self, meeting: Meeting) -> None:
        """The tree stands still: only of those who are ready now the digest is of what is in the dump."""
        if self._files is not None and meeting.digests:
            ready = {str(pid) for pid, one in self._files.members().items() if one.ready == meeting.round}
            meeting.digests = {pid: digest for pid, digest in meeting.digests.items() if pid in ready}

    @asynccontextmanager
    async def meeting(self, snapshot: str, limit_s: float = math.inf) -> AsyncIterator[Meeting]:
        """Around the work of CRIU: everybody who can be had stands between two steps.

        ``snapshot``: its id; ``limit_s``: when there is less time than usual.
        """
        meeting = Meeting()
        if self._there is None:
            yield meeting
            return
        self._meeting = True
        beats = asyncio.ensure_future(self._beat())
        try:
            await self._gather(self._there, meeting, snapshot, min(limit_s, self._limit_s))
            yield meeting
        except PassingFailureError:
            self._end(meeting, Phase.AGAIN)
            raise
        except BaseException as error:
            problem = str(error) if isinstance(error, CriuTrainError) else repr(error)
            self._end(meeting, Phase.FAILED, problem)
            raise
        else:
            self._end(meeting, Phase.CUT)
        finally:
            beats.cancel()
            self._meeting, self._met_at = False, self._clock()

    def _end(self, meeting: Meeting, phase: Phase, problem: str = "") -> None:
        if self._files is not None and meeting.round:
            self._files.change(phase, of=meeting.round, problem=problem)

    async def _beat(self) -> None:
        while self._files is not None:
            self._files.beat()
            await asyncio.sleep(_POLL_S)

    # --- getting everybody there --------------------------------------------------------------------------------

    async def _gather(self, there: Attendance, meeting: Meeting, snapshot: str, limit_s: float) -> None:
        files = there.files
        expected = there.expected(limit_s)
        asked = any(map(there.asks, expected.values()))
        if not expected or (limit_s <= 0 and not asked):
            meeting.aligned = False if there.known else None
            return
        limit_s = max(limit_s, _COMING_S if asked else 0.0)
        until = self._clock() + limit_s
        for margin in _MARGINS:
            files.begin(self._target(there, expected, margin), snapshot)
            meeting.round = files.round
            patience_s = _COMING_S if asked else _STALLED_S
            meeting.aligned, stalled, first_at = await self._wait_for(there, set(expected), until, patience_s)
            if not stalled or asked or len(expected) == 1 or margin == _MARGINS[-1] or self._clock() >= until:
                break
            files.change(Phase.AGAIN)
            await asyncio.sleep(_LOOK_S)
            expected = there.expected(limit_s) or expected
        await self._prepare(there, meeting, limit_s)
        if first_at is not None:
            meeting.parked_s = self._clock() - first_at

    def _target(self, there: Attendance, expected: Mapping[int, MemberState], margin: int) -> int:
        """The step at which all of these are to park."""
        positions = [one.position for one in expected.values()]
        if len(positions) == 1 or max(positions) - min(positions) > _IN_STEP:
            return NEXT_REPORT
        asked = [one.position for one in expected.values() if there.asks(one)]
        if asked:  # they are where they want the dump; others may be on their way to the same place
            target = max(asked) + 1
        else:
            fastest = there.fastest(expected)
            target = max(positions) + max(margin, math.ceil(_MARGIN_S / fastest) if fastest > 0 else _FAST)
        return target if 0 < target < _TOO_FAR else NEXT_REPORT

    async def _wait_for(
        self, there: Attendance, expected: set[int], until: float, patience_s: float
    ) -> tuple[bool, bool, float | None]:
        """Whether all of them have parked; if not, whether some stand still; and since when the first one has."""
        first_at: float | None = None
        looked_at = moved_at = self._clock()
        while expected and not self._cell.ended.done():
            before = there.reports(expected)
            members, now = there.look(), self._clock()
            parked = {pid for pid in expected if pid in members and members[pid].parked == there.files.round}
            if parked and first_at is None:
                first_at = moved_at = now
            if parked == expected:
                return True, False, first_at
            if there.reports(expected) != before:
                moved_at = now
            if parked and now - moved_at > max(patience_s, _STALLED_STEPS * there.slowest(expected)):
                return False, True, first_at
            if now >= until:
                return False, False, first_at
            if now - looked_at > _STALLED_S:
                looked_at = now
                expected &= there.living(members)
            await asyncio.sleep(_LOOK_S)
        return False, False, first_at

    async def _prepare(self, there: Attendance, meeting: Meeting, limit_s: float) -> None:
        """Those who have parked clean up; whoever takes too long for it is not waited for."""
        files = there.files
        files.change(Phase.PREPARING)
        looked_at = self._clock()
        until = looked_at + limit_s
        members = there.look()
        parked = {pid for pid in there.living(members) if members[pid].parked == files.round}
        while late := [pid for pid in parked if pid in members and members[pid].ready != files.round]:
            if (now := self._clock()) >= until or self._cell.ended.done():
                meeting.aligned, meeting.late = False, len(late)
                break
            if now - looked_at > _STALLED_S:
                looked_at, parked = now, there.living(parked)
            await asyncio.sleep(_LOOK_S)
            members = there.look()
        files.change(Phase.CUTTING)
        made = files.generation + 1
        meeting.digests = {
            str(pid): one.digest
            for pid, one in members.items()
            if pid in parked and one.ready == files.round and one.digested == made and one.digest
        }
