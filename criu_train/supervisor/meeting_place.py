"""Where the hooks of a training meet us: for a new run, for what a snapshot holds, for what runs already."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from criu_train.errors import CriuTrainError, EnvironmentUnfitError
from criu_train.hooks import layout
from criu_train.store.manifest import HookFacts
from criu_train.store.snapshot import Snapshot
from criu_train.store.state import Run
from criu_train.store.store import Store
from criu_train.supervisor.hook_files import HookFiles, ours_in
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.user import UserIds
from criu_train.workspace.listing import Listing

# The directory can be walked through, since a training of another user has to; what lies in it is named by chance.
_BASE = "criu-train-hooks"


def usual_directory(store_id: str) -> Path:
    """Where the hooks of a store's trainings meet."""
    base = Path("/run") if os.access("/run", os.W_OK) else Path(tempfile.gettempdir())
    return base / _BASE / store_id


def same_place(recorded: str, usual: Path) -> Path:
    """Where a training from elsewhere looks for us, if that is a place for hooks at all; else the usual one."""
    path = Path(recorded)
    return path if path.is_absolute() and path.parent.name == _BASE and path.name.isalnum() else usual


def _owner_in(listing: Listing, directory: str, usual: tuple[int, int]) -> tuple[int, int]:
    """Who had the members' directory at the cut."""
    path = f"{directory}/{layout.MEMBERS}"
    return next(((entry.uid, entry.gid) for entry in listing.entries if entry.path == path), usual)


def environment_of(files: HookFiles | None) -> dict[str, str]:
    """What a training is told of it."""
    return {layout.VARIABLE: str(files.directory)} if files is not None else {}


class MeetingPlace:
    """Of one supervisor. What is returned is None, after a warning, where hooks can't be had and are not needed."""

    def __init__(self, store: Store, user: UserIds | None, reporter: Reporter) -> None:
        self._store = store
        self._reporter = reporter
        self._owner = user.ids[:2] if user else (os.geteuid(), os.getegid())
        self._directory = usual_directory(store.id)

    @property
    def ours(self) -> Path:
        """What of the place is no part of the training's workspace."""
        return ours_in(self._directory)

    def leave(self) -> None:
        """Whatever comes next begins anew at the usual place."""
        self._directory = usual_directory(self._store.id)

    def for_new_run(self) -> HookFiles | None:
        """Nobody is there yet."""
        files = self._open(generation=0)
        if files is not None:
            files.clear()
        return files

    def for_snapshot(self, run: Run, snapshot: Snapshot, listing: Listing) -> HookFiles | None:
        """Where what is in the snapshot looks for us; it must see that there was a restore since.

        Raises EnvironmentUnfitError where it needs that and can't have it: CRIU would not find what is mapped, and one
        snapshot after the other would be blamed for it.
        """
        manifest, restores = snapshot.manifest, self._restores(run)
        known = manifest.hooks if manifest else None
        self._go_to(known)
        if manifest is None or known is None:
            return self._open(generation=restores + 1)
        return self._open(
            needed=manifest.aligned is not None,
            generation=max(restores, known.generation) + 1,
            after_round=known.round,
            restored_from=snapshot.id,
            owner=_owner_in(listing, str(self._directory), self._owner),
        )

    def for_adopted(self, run: Run, snapshot: Snapshot | None) -> HookFiles | None:
        """``snapshot``: the last known one of what runs already."""
        known = snapshot.manifest.hooks if snapshot and snapshot.manifest else None
        self._go_to(known)
        return self._open(generation=self._restores(run), adopted=True)

    def note_restore(self, generation: int) -> None:
        """A full disk is no reason to end the training: the next snapshot knows the generation too."""
        with contextlib.suppress(OSError, CriuTrainError):
            self._store.note_restore(generation)

    def _go_to(self, known: HookFacts | None) -> None:
        usual = usual_directory(self._store.id)
        self._directory = usual if known is None else same_place(known.directory, usual)

    def _restores(self, run: Run) -> int:
        current = self._store.run
        return current.restores if current and current.id == run.id else run.restores

    def _open(self, *, needed: bool = False, **how: Any) -> HookFiles | None:
        try:
            return HookFiles(self._directory, **{"owner": self._owner, **how})
        except EnvironmentUnfitError as error:
            if needed:
                raise
            self._reporter.warning(str(error), error.tip)
            return None
