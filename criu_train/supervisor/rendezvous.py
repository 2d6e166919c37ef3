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

from criu_train.cell import processes
from criu_train.cell.cell import Cell
from criu_train.errors import CriuTrainError
from criu_train.hooks.layout import NEXT_REPORT, Phase
from criu_train.progress.line import NOTHING, Told
from criu_train.store.manifest import HookFacts
from criu_train.supervisor.dump_errors import PassingFailureError
from criu_train.supervisor.hook_files import HookFiles, MemberState

# Between two looks at the pages: while a meeting comes about, while hooks are used, while none are.
_LOOK_S, _POLL_S, _SLOW_POLL_S = 0.002, 0.1, 1.0
# Steps that ranks are asked to park after the farthest of them, one try after the other, and seconds beside them.
_MARGINS, _MARGIN_S = (2, 8, 64), 0.02
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

    ``digests``: of the state, by PID in the cell.
    """

    round: int = 0
    aligned: bool | None = None
    parked_s: float = 0.0
    digests: Mapping[str, str] = field(default_factory=dict)


NO_MEETING = Meeting()


@dataclass
class _Pace:
    """Of one member: when it was last seen to have reported, and how long a step takes (seconds)."""

    reports: int
    at: float
    step_s: float = 0.0

    def see(self, reports: int, now: float) -> None:
        if reports != self.reports:
            took = (now - self.at) / max(1, reports - self.reports)
            self.step_s = took if self.step_s == 0 else 0.7 * self.step_s + 0.3 * took
            self.reports, self.at = reports, now


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
        self._cell = cell
        self._limit_s = limit_s
        self._wanted = wanted
        self._clock = clock
        self._paces: dict[int, _Pace] = {}
        self._known: dict[int, MemberState] = {}
        self._meeting = False
        self._met_at = -math.inf

    async def watch(self) -> None:
        """Give signs of life and hear who is in ``checkpoint``, until cancelled."""
        if self._files is None:
            return
        while True:
            self._files.beat()
            with contextlib.suppress(OSError):  # short of descriptors: signs of life go on
                self._see(self._files.members())
                noticed = self._clock() - self._met_at > _NOTICED_S
                if not self._meeting and noticed and self._somebody_waits():
                    self._wanted()
            await asyncio.sleep(_POLL_S if self._known else _SLOW_POLL_S)

    def told(self) -> Told:
        """What the members have reported last; of what several tell, the one with the lowest PID has the last word."""
        if self._files is None:
            return NOTHING
        told = NOTHING
        for _, member in sorted(self._files.members().items(), reverse=True):
            told = told.then(member.told)
        return told

    def facts(self, meeting: Meeting) -> HookFacts | None:
        """For the manifest."""
        if self._files is None:
            return None
        return HookFacts(str(self._files.directory), self._files.generation, self._files.round, meeting.digests)

    def refuse(self, problem: str) -> None:
        """There will be no dump for those who are in ``checkpoint`` now."""
        if self._files is not None and self._somebody_waits():
            self._files.begin(NEXT_REPORT, "")
            self._files.change(Phase.FAILED, problem=problem)
            self._met_at = self._clock()

    def settle(self, meeting: Meeting, problem: str | None = None) -> None:
        """The snapshot that came of it is complete, or has failed."""
        if self._files is not None and meeting.round:
            phase = Phase.COMPLETE if problem is None else Phase.FAILED
            self._files.change(phase, of=meeting.round, problem=problem or "")

    @asynccontextmanager
    async def meeting(self, snapshot: str, limit_s: float = math.inf) -> AsyncIterator[Meeting]:
        """Around the work of CRIU: everybody who can be had stands between two steps.

        ``snapshot``: its id; ``limit_s``: when there is less time than usual.
        """
        meeting = Meeting()
        if self._files is None:
            yield meeting
            return
        self._meeting = True
        beats = asyncio.ensure_future(self._beat())
        try:
            await self._gather(self._files, meeting, snapshot, min(limit_s, self._limit_s))
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

    # --- who there is -------------------------------------------------------------------------------------------

    def _see(self, members: dict[int, MemberState]) -> None:
        now = self._clock()
        for pid, member in members.items():
            self._paces.setdefault(pid, _Pace(member.reports, now)).see(member.reports, now)
        for pid in self._paces.keys() - members.keys():
            del self._paces[pid]
        self._known = members

    def _somebody_waits(self) -> bool:
        assert self._files is not None
        wanted = self._files.generation + 1
        return any(self._known[pid].waiting == wanted for pid in self._living(self._known))

    def _living(self, members: Mapping[int, MemberState]) -> set[int]:
        if not members:
            return set()
        return {pid for one in self._cell.tree() if (pid := processes.pid_in_cell(one)) in members and pid is not None}

    def _expected(self, files: HookFiles) -> dict[int, MemberState]:
        """Who is likely to come soon: those in ``checkpoint``, and those who have reported lately."""
        members = files.members()
        self._see(members)
        living, now = self._living(members), self._clock()
        for pid in members.keys() - living:
            files.forget(pid)
        return {
            pid: members[pid]
            for pid in living
            if members[pid].waiting == files.generation + 1
            or (members[pid].reports and now - self._paces[pid].at < max(self._limit_s, 3 * self._paces[pid].step_s))
        }

    # --- getting everybody there --------------------------------------------------------------------------------

    async def _gather(self, files: HookFiles, meeting: Meeting, snapshot: str, limit_s: float) -> None:
        until = self._clock() + limit_s
        expected = self._expected(files)
        if not expected or limit_s <= 0:
            meeting.aligned = None if not files.members() else False
            return
        for margin in _MARGINS:
            asked = self._asked(expected)
            files.begin(self._target(expected, asked, margin), snapshot)
            meeting.round = files.round
            patience_s = _COMING_S if asked else _STALLED_S
            meeting.aligned, stalled, first_at = await self._wait_for(files, set(expected), until, patience_s)
            if not stalled or asked or len(expected) == 1 or margin == _MARGINS[-1] or self._clock() >= until:
                break
            files.change(Phase.AGAIN)
            await asyncio.sleep(_LOOK_S)
            expected = self._expected(files) or expected
        await self._prepare(files, meeting)
        if first_at is not None:
            meeting.parked_s = self._clock() - first_at

    def _asked(self, expected: Mapping[int, MemberState]) -> list[int]:
        """The steps of those in ``checkpoint``."""
        assert self._files is not None
        return [one.position for one in expected.values() if one.waiting == self._files.generation + 1]

    def _target(self, expected: Mapping[int, MemberState], asked: list[int], margin: int) -> int:
        """The step at which all of these are to park."""
        if asked:  # they are where they want the dump; others may be on their way to the same place
            return max(asked) + 1 if 0 <= max(asked) < _TOO_FAR else NEXT_REPORT
        positions = [one.position for one in expected.values()]
        if len(positions) == 1 or max(positions) - min(positions) > _IN_STEP:
            return NEXT_REPORT
        fastest = min(self._paces[pid].step_s for pid in expected)
        target = max(positions) + margin + (math.ceil(_MARGIN_S / fastest) if fastest > 0 else 0)
        return target if 0 < target < _TOO_FAR else NEXT_REPORT

    async def _wait_for(
        self, files: HookFiles, expected: set[int], until: float, patience_s: float
    ) -> tuple[bool, bool, float | None]:
        """Whether all of them have parked; if not, whether some stand still; and since when the first one has."""
        first_at: float | None = None
        looked_at = moved_at = self._clock()
        while expected and not self._cell.ended.done():
            members, now = files.members(), self._clock()
            parked = {pid for pid in expected if pid in members and members[pid].parked == files.round}
            if parked and first_at is None:
                first_at = moved_at = now
            if parked == expected:
                return True, False, first_at
            before = {pid: self._paces[pid].reports for pid in expected if pid in self._paces}
            self._see(members)
            if any(self._paces[pid].reports != before.get(pid) for pid in expected & self._paces.keys()):
                moved_at = now
            slowest = max((self._paces[pid].step_s for pid in expected & self._paces.keys()), default=0.0)
            if parked and now - moved_at > max(patience_s, _STALLED_STEPS * slowest):
                return False, True, first_at
            if now >= until:
                return False, False, first_at
            if now - looked_at > _STALLED_S:
                looked_at = now
                expected &= self._living(members)
            await asyncio.sleep(_LOOK_S)
        return False, False, first_at

    async def _prepare(self, files: HookFiles, meeting: Meeting) -> None:
        """Those who have parked clean up; whoever takes too long for it is not waited for."""
        files.change(Phase.PREPARING)
        looked_at = self._clock()
        until = looked_at + self._limit_s
        members = files.members()
        parked = {pid for pid in self._living(members) if members[pid].parked == files.round}
        while any(members[pid].ready != files.round for pid in parked & members.keys()):
            if (now := self._clock()) >= until or self._cell.ended.done():
                meeting.aligned = False
                break
            if now - looked_at > _STALLED_S:
                looked_at, parked = now, parked & self._living(members)
            await asyncio.sleep(_LOOK_S)
            members = files.members()
        files.change(Phase.CUTTING)
        made = files.generation + 1
        meeting.digests = {
            str(pid): one.digest
            for pid, one in members.items()
            if pid in parked and one.ready == files.round and one.digested == made and one.digest
        }
