"""A training that lost its supervisor: found, reached through its cell's door, and known again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from criu_train.cell.cell import Cell
from criu_train.cell.records import CellLostError
from criu_train.store.snapshot import Snapshot
from criu_train.store.state import Run
from criu_train.store.store import Store
from criu_train.supervisor.state import State, read_state
from criu_train.workspace.listing import Listing, listing_of

# A dump that was going on when the supervisor was lost has to fail by itself first.
_ADMITTED_S = 60.0
_GONE_S = 10.0
_PAUSE_S = 0.05
# Before that nobody knows whether the training is what it should be: it begins again instead.
_ADOPTABLE = frozenset({"running", "dumping", "stopping", "lost"})


@dataclass(frozen=True)
class Orphan:
    """``snapshot`` and ``listing``: what its workspace was last known as, None where no snapshot has been before.

    ``lock_fd``: the store's lock, shared with init.
    """

    cell: Cell
    lock_fd: int
    run: Run
    state: State
    snapshot: Snapshot | None
    listing: Listing | None


def door_of(store: Store, runtime: Path) -> Path:
    """Where the cell of this store hears a supervisor that comes later."""
    return runtime / f"{store.id}.cell"


def lost_state(store: Store) -> State | None:
    """The state of a cell that lives while its supervisor does not; None when there is none."""
    state = read_state(store.layout.supervisor)
    return state if state is not None and state.cell_alive() and not state.supervisor_alive() else None


def can_be_adopted(state: State) -> bool:
    """Whether the training had begun for good when its supervisor was lost."""
    return state.state in _ADOPTABLE


async def reach(store: Store, state: State, runtime: Path) -> Orphan | None:
    """None when the cell is about to end, or lets nobody in."""
    run = store.run
    assert run is not None and state.init_pid is not None
    try:
        reached = await Cell.rejoin(state.init_pid, door_of(store, runtime), store.layout.init_log, limit_s=_ADMITTED_S)
    except (OSError, CellLostError):
        return None
    if reached is None:
        return None
    cell, lock_fd, facts = reached
    if facts["run"] != run.id:
        os.close(lock_fd)
        cell.forget()
        return None
    snapshot = _last_known(store, run, state, cell.journal.name)
    listing = await asyncio.to_thread(listing_of, snapshot) if snapshot else None
    return Orphan(cell, lock_fd, run, state, snapshot, listing)


def _last_known(store: Store, run: Run, state: State, journal: str) -> Snapshot | None:
    """The newest that was taken in this cell; else the one that this cell was restored from, or one like it."""
    whole = [s for s in store.snapshots() if s.status == "complete" and s.manifest and s.manifest.run == run.id]
    in_this_cell = [s for s in whole if s.manifest and s.manifest.journal == journal]
    if in_this_cell or state.restored_from is None:
        return in_this_cell[-1] if in_this_cell else None
    return next((s for s in whole if s.id == state.restored_from), whole[-1] if whole else None)


def wait_until_gone(state: State, *, kill: bool) -> bool:
    """Whether the cell has ended in time; ``kill`` ends it."""
    end = time.monotonic() + _GONE_S
    while state.cell_alive():
        if time.monotonic() >= end:
            return False
        if kill and state.init_pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.init_pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)
    return True
