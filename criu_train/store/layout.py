"""Where everything in a store lies, and what snapshots are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_ID = re.compile(r"(\d{8}T\d{6}Z)-(\d{6,})", re.ASCII)
TRASH_PREFIX = ".trash-"


@dataclass(frozen=True)
class StoreLayout:
    """The paths of the store at ``root``; touches nothing."""

    root: Path

    @property
    def config(self) -> Path:
        """``store.json``: identity, PID base, next sequence number, current run, marks on snapshots."""
        return self.root / "store.json"

    @property
    def mutex(self) -> Path:
        """Held for the few milliseconds in which ``store.json`` or the set of snapshots changes."""
        return self.root / ".mutex"

    @property
    def lock(self) -> Path:
        """Held by the supervisor and by init as long as one of them lives."""
        return self.root / "lock"

    @property
    def supervisor(self) -> Path:
        """What the supervisor says about itself."""
        return self.root / "supervisor.json"

    @property
    def events(self) -> Path:
        """Everything that happened, one object a line."""
        return self.root / "events.jsonl"

    @property
    def output_log(self) -> Path:
        """The training's stdout and stderr."""
        return self.root / "output.log"

    @property
    def cell(self) -> Path:
        """Written by init when the training ended."""
        return self.root / "cell.json"

    @property
    def init_log(self) -> Path:
        """What init complained of, should it ever have had to."""
        return self.root / "init.log"

    @property
    def journals(self) -> Path:
        """One journal a cell: what was done to files."""
        return self.root / "journals"

    @property
    def snapshots(self) -> Path:
        """One directory a snapshot."""
        return self.root / "snapshots"

    @property
    def rollback(self) -> Path:
        """What rollbacks cut, replaced or removed."""
        return self.root / "rollback"


def snapshot_id(sequence: int, created: datetime) -> str:
    """``20261121T204512Z-000007``."""
    return f"{created.astimezone(UTC):%Y%m%dT%H%M%SZ}-{sequence:06d}"


def sequence_of(name: str) -> int | None:
    """The sequence number in a snapshot's id, or None when the name is no id."""
    match = _ID.fullmatch(name)
    return int(match[2]) if match else None


def created_at_of(identifier: str) -> str:
    """The time in a snapshot's id as ``2026-11-21T20:45:12Z``."""
    stamp = identifier.partition("-")[0]
    return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:11]}:{stamp[11:13]}:{stamp[13:]}"
