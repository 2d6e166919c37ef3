"""What everybody needs who looks after a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from criu_train.criu.find import Criu
from criu_train.store.events import EventLog
from criu_train.store.store import Store
from criu_train.supervisor.keeper import Keeper
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.state import StateFile


@dataclass(frozen=True)
class RunContext:
    """``runtime``: the directory of the machine-wide lock. All that touches a person goes through ``reporter``."""

    store: Store
    criu: Criu
    keeper: Keeper
    options: RunOptions
    runtime: Path
    state: StateFile
    events: EventLog
    reporter: Reporter
