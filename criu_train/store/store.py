"""The store: the directory of snapshots of one job."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from criu_train.errors import StoreError, UsageError
from criu_train.store import state as state_file
from criu_train.store.choosing import choose
from criu_train.store.creating import initialise
from criu_train.store.draft import Draft
from criu_train.store.durable import DISK, Disk, make_private_dir
from criu_train.store.guard import check_ours
from criu_train.store.journals import forget_journals, next_journal
from criu_train.store.layout import TRASH_PREFIX, StoreLayout, sequence_of, snapshot_id
from criu_train.store.removal import set_aside, sweep
from criu_train.store.retention import newest_of, superfluous
from criu_train.store.seal import PLAIN, Key, LockedSeal, Seal
from criu_train.store.snapshot import Listed, Snapshot, by_sequence, list_snapshots, read_snapshots
from criu_train.store.state import Run, StoreState
from criu_train.units import utc_now_iso


class Store:
    """Safe to use from several processes at once; every change is durable when the call returns."""

    def __init__(self, layout: StoreLayout, disk: Disk = DISK, key: Key | None = None) -> None:
        """Use ``open`` or ``create_or_open``, which check first."""
        self.layout = layout
        self._disk = disk
        state = state_file.load(layout)
        self.id = state.id
        self.pid_base = state.pid_base
        self._seal = _unlock(state, layout, key)

    @classmethod
    def open(cls, root: Path, disk: Disk = DISK, *, key: Key | None = None) -> Store:
        """Open the store at ``root``; raises StoreError where there is none, or none that we can trust.

        ``key``: of an encrypted one. Without it nothing but what needs no snapshot can be asked.
        """
        layout = StoreLayout(root.absolute())
        try:
            for directory in (layout.root, layout.snapshots):
                if directory.is_dir():
                    check_ours(directory)
            return cls(layout, disk, key)
        except OSError as error:
            raise StoreError(
                f"the store {root} can't be read: {error.strerror}", tip="name another place with --store"
            ) from error

    @classmethod
    def open_if_any(cls, root: Path, *, key: Key | None = None) -> Store | None:
        """Open the store at ``root``, None where there is none yet; raises StoreError for one that we can't trust."""
        try:
            return cls.open(root, key=key)
        except StoreError:
            with suppress(OSError):
                if not StoreLayout(root).config.exists():
                    return None
            raise

    @classmethod
    def create_or_open(cls, root: Path, disk: Disk = DISK, *, key: Key | None = None) -> Store:
        """Open the store at ``root``, made first (0700, files 0600) where there is none; raises StoreError.

        ``key``: a store that is made now is encrypted with it.
        """
        layout = StoreLayout(root.absolute())
        try:
            if not layout.root.is_dir():
                layout.root.parent.mkdir(parents=True, exist_ok=True)
                try:
                    make_private_dir(layout.root)
                except FileExistsError:
                    check_ours(layout.root)
                disk.fsync(layout.root.parent)
            check_ours(layout.root)
            if not layout.config.exists():
                initialise(layout, disk, key)
        except OSError as error:
            raise StoreError(
                f"no store can be made at {layout.root}: {error.strerror}", tip="name another place with --store"
            ) from error
        return cls.open(root, disk, key=key)

    @property
    def seal(self) -> Seal:
        """How snapshots are protected; raises StoreError where the key is missing."""
        return self._seal.ready()

    # Runs

    @property
    def run(self) -> Run | None:
        """The current run, finished or not."""
        return state_file.load(self.layout).run

    def begin_run(self, command: tuple[str, ...], cwd: str, instead_of: Run | None = None) -> Run:
        """Start a new run, which becomes the current one. ``instead_of``: one that could not be gone on with."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"
        spared = (*instead_of.instead_of, instead_of.id) if instead_of else ()
        run = Run(name, command, cwd, utc_now_iso(), instead_of=spared)
        self._change(lambda state: state.begin(run))
        return run

    def left_by(self, run: Run) -> Snapshot | None:
        """The newest snapshot of those that ``run`` was begun instead of."""
        snapshots = self.snapshots()
        found = (newest_of(snapshots, other) for other in reversed(run.instead_of))
        return next((one for one in found if one is not None), None)

    def note_restore(self, times: int) -> None:
        """The current run has been restored so often by now."""
        self._change(lambda state: state.restored(times))

    def finish_run(self, exit_code: int, how: str) -> None:
        """The current run came to its end: nothing of it is restored any more unless asked for by id."""
        self._change(lambda state: state.finish(utc_now_iso(), exit_code, how))

    def forget_run(self) -> None:
        """The command of the current run could not be executed: the run before is the current one again."""
        self._change(lambda state: state.forget())

    def resume_run(self, run_id: str, command: tuple[str, ...], cwd: str, *, if_none: bool = False) -> Run:
        """Make the run that a snapshot belongs to the current one again, not finished; returns the current one.

        ``if_none``: only where the store has no run.
        """
        run = Run(run_id, command, cwd, utc_now_iso())
        current = self._change(lambda state: state if if_none and state.run else state.resume(run)).run
        assert current is not None
        return current

    # Snapshots

    def new_draft(self, run_id: str, trigger: str) -> Draft:
        """Begin a snapshot; its sequence number was never used before and never will be again. Raises OSError."""
        with state_file.mutex(self.layout):
            names = (path.name.removeprefix(TRASH_PREFIX) for path in self._entries())
            used = [number for name in names if (number := sequence_of(name)) is not None]
            sequence = max(state_file.load(self.layout).next_sequence, 1 + max(used, default=0))
            self._change_locked(lambda state: replace(state, next_sequence=sequence + 1))
            path = self.layout.snapshots / snapshot_id(sequence, datetime.now(UTC))
            return Draft(path, run_id, trigger, self._disk, self.seal)

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, oldest first by sequence number; reads no images."""
        state = state_file.load(self.layout)
        return read_snapshots(self._paths(), abandoned=state.abandoned, proven=state.proven, seal=self.seal)

    def listing(self, newest: int | None = None) -> list[Listed]:
        """As ``snapshots``, quick with thousands: only the newest twenty are looked at beyond their manifests.

        ``newest``: no more than so many.
        """
        state = state_file.load(self.layout)
        paths = self._paths() if newest is None else by_sequence(self._paths())[-newest:]
        return list_snapshots(paths, abandoned=state.abandoned, proven=state.proven, seal=self.seal)

    def earlier(self) -> list[Path]:
        """Where the newest complete snapshots lie, newest first: as many as somebody may look into, eight."""
        return [one.path for one in reversed(self.listing()) if one.status == "complete"][:8]

    def added_by_newest(self) -> int:
        """How many bytes the newest complete snapshot added to the disk; all of its bytes where nobody counted."""
        newest = next((one.manifest for one in reversed(self.listing()) if one.status == "complete"), None)
        if newest is None:
            return 0
        return newest.stored_bytes if newest.added_bytes is None else newest.added_bytes

    def find(self, text: str) -> Snapshot:
        """The snapshot that is meant, see ``choosing``; raises UsageError."""
        return choose(text, self.snapshots(), state_file.load(self.layout).run_id)

    def abandon_after(self, snapshot_id: str) -> list[str]:
        """A branch begins at a snapshot: mark the later complete ones of its run; returns their ids."""
        snapshots = self.snapshots()
        start = next(one for one in snapshots if one.id == snapshot_id)
        run = start.manifest.run if start.manifest else None
        later = [
            one.id
            for one in snapshots
            if one.sequence > start.sequence and one.status == "complete" and one.manifest and one.manifest.run == run
        ]
        # The start itself is wanted again, even if an earlier branch had left it behind.
        self._change(lambda state: replace(state, abandoned=tuple(sorted({*state.abandoned, *later} - {snapshot_id}))))
        return later

    def mark_proven(self, snapshot_id: str, proven: bool) -> None:
        """A trial restore of the snapshot worked, or did not."""
        self._change(lambda state: replace(state, proven={**state.proven, snapshot_id: proven}))

    def delete(self, ids: Iterable[str], *, force: bool = False) -> None:
        """Remove snapshots by their full ids; raises StoreError, having removed none.

        The last usable one of a run that is not finished goes only by ``force``.
        """
        wanted = set(ids)
        snapshots = self.snapshots()
        if unknown := wanted - {one.id for one in snapshots}:
            raise UsageError(f"there is no snapshot {min(unknown)}", tip="`criu-train snapshot list` shows the ids")
        run = self.run
        if run and run.finished_at is None and not force:
            newest = newest_of(snapshots, run.id)
            if newest and not newest_of([one for one in snapshots if one.id not in wanted], run.id):
                raise StoreError(
                    f"{newest.id} is the last snapshot that the unfinished run could go on from",
                    tip="keep it, or delete it with --force",
                )
        self._remove([one for one in snapshots if one.id in wanted], refuse_live=True)

    def kept(self, keep: int) -> frozenset[str]:
        """The ids of all that a prune would leave."""
        snapshots, run = self.snapshots(), self.run
        return frozenset(one.id for one in snapshots) - {one.id for one in superfluous(snapshots, keep, run)}

    def prune(self, keep: int, spared: Collection[str] = ()) -> list[str]:
        """Keep ``keep`` complete snapshots, the current run's first, see ``retention``; returns the ids of the others.

        ``spared``: ids that stay beside them.
        Also sweeps what dead dumps and interrupted deletions left; never touches a draft whose writer lives.
        """
        if keep < 1:
            raise UsageError("at least one snapshot has to stay", tip="use --keep 1 or more")
        gone = self._remove(superfluous(self.snapshots(), keep, self.run, spared), refuse_live=False)
        forget_journals(self.layout.journals, self.listing())
        return gone

    def sweep(self) -> list[str]:
        """Remove only what dead dumps and interrupted deletions left; returns the ids of the former."""
        return self._remove([one for one in self.snapshots() if one.status == "incomplete"], refuse_live=False)

    def next_journal(self) -> Path:
        """Where the next cell writes its journal; the directory is there, the file is not."""
        return next_journal(self.layout.journals)

    # How

    def _remove(self, snapshots: Sequence[Snapshot], *, refuse_live: bool) -> list[str]:
        with state_file.mutex(self.layout):
            gone = set_aside(snapshots, refuse_live=refuse_live, disk=self._disk)
            self._change_locked(
                lambda state: replace(
                    state,
                    abandoned=tuple(one for one in state.abandoned if one not in gone),
                    proven={one: proven for one, proven in state.proven.items() if one not in gone},
                )
            )
        sweep(self.layout.snapshots, disk=self._disk)
        return gone

    def _entries(self) -> Sequence[Path]:
        return list(self.layout.snapshots.iterdir()) if self.layout.snapshots.is_dir() else []

    def _paths(self) -> Sequence[Path]:
        return [path for path in self._entries() if sequence_of(path.name) is not None]

    def _change(self, how: state_file.Change) -> StoreState:
        with state_file.mutex(self.layout):
            return self._change_locked(how)

    def _change_locked(self, how: state_file.Change) -> StoreState:
        return state_file.change(self.layout, how, self._disk)


def _unlock(state: StoreState, layout: StoreLayout, key: Key | None) -> Seal:
    """Raises StoreError for a key that is not the store's."""
    if key is None:
        return PLAIN if state.seal_check is None else LockedSeal()
    if state.seal_check is None:
        raise StoreError(
            f"the store {layout.root} is not encrypted, and can't become so",
            tip="name a new one with --store, or go on without --key-file",
        )
    if key.path.is_relative_to(layout.root):
        raise StoreError("the key lies in the store that it is to protect", tip="keep it elsewhere, with a copy")
    seal = key.seal_for(state.id)
    if seal.check != state.seal_check:
        raise StoreError(f"{key.path} is not the key of this store", tip="name the one that it was made with")
    return seal
