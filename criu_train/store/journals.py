"""The journals of a store: one a cell, numbered."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from criu_train.store.durable import make_private_dir
from criu_train.store.snapshot import Listed


def next_journal(directory: Path) -> Path:
    """Where the next cell writes its journal; the directory is there, the file is not."""
    if not directory.is_dir():
        make_private_dir(directory)
    numbers = [int(path.stem) for path in directory.glob("*.jsonl") if path.stem.isdecimal()]
    return directory / f"{max(numbers, default=0) + 1:06d}.jsonl"


def forget_journals(directory: Path, snapshots: Iterable[Listed]) -> None:
    """A restore reads the journals from its snapshot's on; those before the oldest snapshot's serve nobody."""
    needed = [one.manifest.journal for one in snapshots if one.manifest and one.manifest.journal]
    for path in directory.glob("*.jsonl"):
        if needed and path.name < min(needed):
            path.unlink(missing_ok=True)
