"""What a restore is given, and what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from criu_train.cell.cell import Cell
from criu_train.criu.find import Criu
from criu_train.store.snapshot import Snapshot
from criu_train.store.store import Store
from criu_train.supervisor.hook_files import HookFiles
from criu_train.supervisor.keeper import Keeper
from criu_train.supervisor.options import RunOptions
from criu_train.workspace.listing import Listing

CellFactory = Callable[[], Awaitable[Cell]]
HooksFactory = Callable[[Snapshot, Listing], HookFiles | None]
Tell = Callable[[str, int, str], None]


def _tell_nobody(snapshot: str, memory_bytes: int, phase: str) -> None:
    pass


@dataclass(frozen=True)
class RestoreContext:
    """What every restore of one store needs. ``runtime``: the directory of the machine-wide lock.

    ``new_cell`` starts an empty cell with a journal of its own, ``new_hooks`` makes what the hooks of a snapshot's
    training look for. ``tell``: which snapshot, how much memory, and what is done about it now.
    """

    store: Store
    criu: Criu
    keeper: Keeper
    options: RunOptions
    runtime: Path
    new_cell: CellFactory
    new_hooks: HooksFactory
    tell: Tell = _tell_nobody


@dataclass(frozen=True)
class Restored:
    """A cell in which the training runs again."""

    cell: Cell
    snapshot: Snapshot
    listing: Listing
    rollback_summary: str
    hooks: HookFiles | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
