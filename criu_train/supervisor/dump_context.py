"""What a dump is given, and what comes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from criu_train.cell.cell import Cell
from criu_train.criu.find import Criu
from criu_train.store.snapshot import Snapshot
from criu_train.store.state import Run
from criu_train.store.store import Store
from criu_train.supervisor.keeper import Keeper
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.rendezvous import Rendezvous
from criu_train.workspace.tracker import Tracker


@dataclass(frozen=True)
class DumpContext:
    """What every dump of one cell needs. ``runtime``: the directory of the machine-wide lock."""

    store: Store
    run: Run
    criu: Criu
    cell: Cell
    tracker: Tracker
    keeper: Keeper
    options: RunOptions
    runtime: Path
    rendezvous: Rendezvous


@dataclass(frozen=True)
class Dumped:
    """A snapshot and what the dump of it had to tell."""

    snapshot: Snapshot
    notes: tuple[str, ...]


def left(deadline: float | None, usual_s: float) -> float:
    """Seconds until the deadline (monotonic), one at least; without one, what is usual."""
    return usual_s if deadline is None else max(1.0, deadline - time.monotonic())
