"""How to begin: which run goes on from which snapshots, or a cold start. Decides; touches no file of the training."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from criu_train.cell.records import Ended
from criu_train.errors import StoreError
from criu_train.store.snapshot import MANIFEST, Snapshot
from criu_train.store.state import Run
from criu_train.store.store import Store
from criu_train.workspace.place import how_to_go_back


@dataclass(frozen=True)
class Start:
    """Snapshots to try, newest first, and the run they belong to, which had begun before (None: it begins now).

    Where no snapshot works, or there is none, it is a cold start.

    ``branch``: the snapshots after the one restored are left behind.
    """

    command: tuple[str, ...]
    cwd: str
    run: Run | None
    candidates: tuple[Snapshot, ...]
    reason: str
    branch: bool = False


@dataclass(frozen=True)
class AlreadyEnded:
    """The training came to its end while no supervisor watched."""

    ended: Ended


def start_of_command(
    store: Store, command: tuple[str, ...], cwd: str, *, fresh: bool, ended_alone: Ended | None
) -> Start | AlreadyEnded:
    """For ``run``. Raises StoreError when the store belongs to another command."""
    run = store.run
    if fresh:
        return Start(command, cwd, None, (), "--fresh was given")
    if run is None:
        return Start(command, cwd, None, (), "the store has no run yet")
    if run.finished_at is None and _moved_along(store, run.cwd, cwd):
        raise StoreError(
            f"the training of this store works in {run.cwd}, not here: {shlex.join(run.command)}",
            tip=f"its processes know that path only: `{how_to_go_back(cwd, run.cwd)}`, then the same command there; "
            "or start it over here with --fresh",
        )
    if (run.command, run.cwd) != (command, cwd):
        what = shlex.join(run.command) if run.command != command else f"{shlex.join(run.command)} in {run.cwd}"
        raise StoreError(
            f"this store belongs to another command: {what}",
            tip="give this one a store of its own with --store, or start it over here with --fresh",
        )
    if run.finished_at is not None:
        return Start(command, cwd, None, (), "the last run came to its end")
    if ended_alone is not None and ended_alone.code == 0:
        return AlreadyEnded(ended_alone)
    candidates = restorable(store, run)
    if not candidates:
        return Start(command, cwd, run, (), "the interrupted run has no snapshot yet")
    return Start(command, cwd, run, candidates, "the run was interrupted")


def _moved_along(store: Store, old: str, new: str) -> bool:
    """Whether the store lies in the one directory and has nothing to do with the other."""
    root = store.layout.root
    return root.is_relative_to(new) and not root.is_relative_to(old)


def start_of_snapshot(store: Store, snapshot: Snapshot) -> Start:
    """For ``restore``: the named snapshot and nothing else; its run becomes the current one once it is restored.

    Raises StoreError when it can't be restored."""
    if snapshot.manifest is None:
        raise StoreError(
            f"snapshot {snapshot.id} is {snapshot.status}: {snapshot.reason}",
            tip="`criu-train snapshot list` shows the others",
        )
    told = snapshot.manifest
    current = store.run
    run = current if current and current.id == told.run else Run(told.run, told.command, told.cwd, told.created_at)
    return Start(run.command, run.cwd, run, (snapshot,), "asked for", branch=True)


def restorable(store: Store, run: Run) -> tuple[Snapshot, ...]:
    """The run's snapshots that may be tried, newest first; damaged and incomplete ones too, so that it is told why
    they are passed over. Empty when there never was a whole one."""
    mine = [s for s in store.snapshots() if not s.abandoned and (s.manifest is None or s.manifest.run == run.id)]
    if not any(s.status != "incomplete" or (s.path / MANIFEST).exists() for s in mine):
        return ()
    return tuple(reversed(mine))
