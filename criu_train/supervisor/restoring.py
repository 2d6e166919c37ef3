"""Restoring: the newest snapshot that works, older ones after it, each with its reason when it is passed over."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from criu_train.criu.cure import cure
from criu_train.errors import CriuTrainError, EnvironmentUnfitError, RestoreFailedError
from criu_train.store.dump_log import read_log
from criu_train.store.snapshot import Snapshot
from criu_train.supervisor.blame import blame_the_snapshot
from criu_train.supervisor.feeding import ArchiveLostError
from criu_train.supervisor.restore_attempt import RestoreAttempt
from criu_train.supervisor.restore_context import RestoreContext, Restored
from criu_train.supervisor.restore_errors import CutShortError, OtherStateError, SurroundingsError, UndoFailedError

# A process that is killed again and again for want of memory is not the snapshot's fault, nor does patience help.
_TRIES = 3


@dataclass(frozen=True)
class Attempt:
    """One snapshot that was tried; ``reason`` is None for the one that works."""

    snapshot: str
    reason: str | None
    tip: str | None = None


class Restorer:
    """Tries snapshots in the order given."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context
        self.attempts: list[Attempt] = []
        self._errors: list[Exception] = []

    async def restore_first_that_works(self, snapshots: Sequence[Snapshot]) -> Restored | None:
        """None when none works; ``attempts`` then tells why. Raises CriuTrainError for what is no snapshot's fault."""
        for snapshot in snapshots:
            try:
                restored = await self._restore_patiently(snapshot)
            except (UndoFailedError, EnvironmentUnfitError, ArchiveLostError):
                raise  # no snapshot's fault
            except (CriuTrainError, OSError) as error:
                self._errors.append(error)
                self.attempts.append(Attempt(snapshot.id, *blame_the_snapshot(error, self._context.store)))
            else:
                _release_peers(snapshot)
                self.attempts.append(Attempt(snapshot.id, None))
                return restored
            _release_peers(snapshot)
        return None

    def why_not_begin_anew(self) -> RestoreFailedError | None:
        """What speaks against a cold start after all have failed: it would throw away what may well be restored yet."""
        if self._errors and all(isinstance(error, OtherStateError) for error in self._errors):
            return RestoreFailedError(
                "every snapshot was restored, and of none the state is the one that its digest tells of",
                tip="is the digest of criu_train.hooks the same whenever it is made? --fresh starts over",
            )
        mendable = (error for error in self._errors if isinstance(error, SurroundingsError))
        if (error := next(mendable, None)) is not None:
            return SurroundingsError(
                f"no snapshot could be restored, which may be no fault of theirs: {error}",
                tip="mend what the table names and run again, nothing is lost; or start over with --fresh",
            )
        return None

    async def _restore_patiently(self, snapshot: Snapshot) -> Restored:
        """Again when somebody was killed that took part: the cell, CRIU, the process that hands out the images."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(ArchiveLostError, CutShortError):
                return await RestoreAttempt(self._context, snapshot).restore()
        return await RestoreAttempt(self._context, snapshot).restore()


def _release_peers(snapshot: Snapshot) -> None:
    """Whoever was kept waiting for this very restore has waited long enough, whatever became of it."""
    if snapshot.manifest is not None and snapshot.manifest.trigger == "preempt":
        cure([], log=read_log(snapshot.path))
