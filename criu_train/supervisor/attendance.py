"""Which processes of a training use hooks, how fast they go, and who of them waits for a dump."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from criu_train.cell import processes
from criu_train.cell.cell import Cell
from criu_train.supervisor.hook_files import HookFiles
from criu_train.supervisor.hook_pages import MemberState

# One that waits and is not in the tree for so long is no part of what is dumped.
_STRAY_S = 2.0


@dataclass
class Pace:
    """Of one member: when it was last seen to have reported, and how long a step takes (seconds; 0: not known)."""

    reports: int
    at: float
    step_s: float = 0.0

    def see(self, reports: int, now: float) -> None:
        """It has reported so often by now."""
        if reports != self.reports:
            took = (now - self.at) / max(1, reports - self.reports)
            self.step_s = took if self.step_s == 0 else 0.7 * self.step_s + 0.3 * took
            self.reports, self.at = reports, now


class Attendance:
    """Of one life. Members go by their PID in the cell."""

    def __init__(self, files: HookFiles, cell: Cell, clock: Callable[[], float] = time.monotonic) -> None:
        self.files = files
        self.paces: dict[int, Pace] = {}
        self.known: dict[int, MemberState] = {}
        self._cell = cell
        self._clock = clock
        self._strays: dict[int, float] = {}

    def look(self) -> dict[int, MemberState]:
        """What the pages say now."""
        now, members = self._clock(), self.files.members()
        for pid, member in members.items():
            self.paces.setdefault(pid, Pace(member.reports, now)).see(member.reports, now)
        for pid in self.paces.keys() - members.keys():
            del self.paces[pid]
        self.known = members
        return members

    def living(self, of: Iterable[int]) -> set[int]:
        """Those that are in the tree."""
        wanted = set(of)
        if not wanted:
            return set()
        return {pid for one in self._cell.tree() if (pid := processes.pid_in_cell(one)) is not None} & wanted

    def asks(self, member: MemberState) -> bool:
        """Whether it is in ``checkpoint``, in this very life."""
        return member.waiting == self.files.generation + 1

    def asking(self) -> set[int]:
        """Those of the tree that were in ``checkpoint`` at the last look."""
        asking = {pid for pid, member in self.known.items() if self.asks(member)}
        living = self.living(asking)
        now = self._clock()
        self._strays = {pid: self._strays.get(pid, now) for pid in asking - living}
        return living

    def strays(self) -> set[int]:
        """Those that have been asking for a while, and are in no tree that could be dumped; the dead are forgotten."""
        now = self._clock()
        strays = {pid for pid, since in self._strays.items() if now - since > _STRAY_S}
        for pid in strays:
            if now - self._strays[pid] > 2 * _STRAY_S:  # it has been answered since
                self.files.forget(pid)
        return strays

    def expected(self, limit_s: float) -> dict[int, MemberState]:
        """Who is likely to come soon: those in ``checkpoint``, and those who have reported lately."""
        before = {pid: member.reports for pid, member in self.known.items()}
        members = self.look()
        living, now = self.living(members), self._clock()
        for pid in members.keys() - living:
            if not self.asks(members[pid]) and members[pid].reports == before.get(pid):
                self.files.forget(pid)
        return {pid: members[pid] for pid in living if self._comes(pid, members[pid], now, limit_s)}

    def _comes(self, pid: int, member: MemberState, now: float, limit_s: float) -> bool:
        pace = self.paces[pid]
        return self.asks(member) or (member.reports > 0 and now - pace.at < max(limit_s, 3 * pace.step_s))

    def fastest(self, of: Iterable[int]) -> float:
        """The shortest step of these, seconds; 0 where one is not known yet."""
        return min((self.paces[pid].step_s for pid in of if pid in self.paces), default=0.0)

    def slowest(self, of: Iterable[int]) -> float:
        """The longest step of these, seconds."""
        return max((self.paces[pid].step_s for pid in of if pid in self.paces), default=0.0)

    def reports(self, of: Iterable[int]) -> Mapping[int, int]:
        """How often each of these has reported."""
        return {pid: self.paces[pid].reports for pid in of if pid in self.paces}
