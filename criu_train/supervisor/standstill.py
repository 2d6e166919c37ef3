"""What becomes of a restored training that stands still: one older snapshot is tried, else it is left running."""

from __future__ import annotations

from collections.abc import Sequence

from criu_train.cell.pulse import take_pulse
from criu_train.store.events import EventLog
from criu_train.store.snapshot import Snapshot
from criu_train.store.store import Store
from criu_train.supervisor.beginning import Life
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.start import restorable
from criu_train.supervisor.vigil import Vigil
from criu_train.units import format_duration


class Fallback:
    """Where to go from a snapshot that stands still; once one moves, all is forgotten."""

    def __init__(self) -> None:
        self.left: Snapshot | None = None  # for an older one
        self._back = False

    def choose(self, still: Snapshot, snapshots: Sequence[Snapshot]) -> tuple[Snapshot, ...]:
        """Snapshots to try, best first; none to leave it as it is. ``snapshots``: the whole ones, newest first.

        Only those that were at work at their dump are worth a try: of the others nobody could tell that they go on.
        """
        if self._back:
            return ()
        if self.left is None:
            older = tuple(s for s in snapshots if s.sequence < still.sequence and s.manifest and s.manifest.at_work)
            if older:
                self.left = still
                return (*older, still)  # never a cold start
        elif still.id != self.left.id:
            self._back = True
            return tuple(s for s in snapshots if s.sequence <= self.left.sequence)
        return ()

    def forget(self) -> None:
        """A restored training moves."""
        self.left, self._back = None, False


class Standstills:
    """Sees to the restored trainings of one supervisor. ``limit_s``: None never counts anything as failed."""

    def __init__(self, store: Store, limit_s: float | None, events: EventLog, reporter: Reporter) -> None:
        self._store = store
        self._limit_s = limit_s
        self._events = events
        self._reporter = reporter
        self._fallback = Fallback()
        self.candidates: tuple[Snapshot, ...] = ()  # to go on with, where a life is to be ended

    def vigil(self, life: Life, *, may_restart: bool) -> Vigil | None:
        """Over this life; None where it is not known that it has to move, or it was found running."""
        told = life.snapshot.manifest if life.snapshot else None
        if self._limit_s is None or life.adopted or told is None or not told.at_work:
            return None
        output = self._store.layout.output_log
        return Vigil(
            lambda: take_pulse(life.cell.tree(), output),
            self._limit_s,
            on_motion=self._fallback.forget,
            to_be_ended=lambda: self.to_be_ended(life, may_restart=may_restart),
        )

    def to_be_ended(self, life: Life, *, may_restart: bool) -> bool:
        """Tell that this one has stood still for the limit, and choose ``candidates``; False to leave it running."""
        still, limit = life.snapshot, self._limit_s
        assert still is not None and limit is not None
        left = self._fallback.left
        unsaved = life.listing.unsaved if life.listing else ()
        # Files that can't be put back after an older snapshot has been tried would make this one useless.
        if left is not None or (may_restart and not unsaved):
            whole = tuple(s for s in restorable(self._store, life.run) if s.status == "complete")
            self.candidates = self._fallback.choose(still, whole)
        else:
            self.candidates = ()
        following = self.candidates[0].id if self.candidates else None
        self._events.append("stood_still", snapshot=still.id, limit_s=limit, next=following)
        since = f"restored from {still.id}, the training has stood still for {format_duration(limit)}"
        at_fault = "does it wait for a server, a device or a mount that is not there any more?"
        if left is None and self.candidates:
            self._reporter.warning(
                f"{since}, but was at work when that was taken: it is ended, and an older snapshot tried",
                f"{at_fault} --progress-limit 0 leaves it alone",
            )
        elif self.candidates:
            self._reporter.warning(
                f"{since} as well: back to {following}, which is left running however long it stands still", at_fault
            )
        else:
            self._reporter.warning(f"{since}: it is left running", at_fault)
        return bool(self.candidates)
