"""Taking snapshots away so that an interruption at any moment leaves the others, and no half of one.

A snapshot is first renamed to ``.trash-ID``, in one step, and the new name is made durable before the first file of
it goes. So an id in the store is always a whole snapshot, and what an interruption leaves is trash by its name, for
the next prune to sweep.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from criu_train.errors import StoreError
from criu_train.store.durable import DISK, Disk
from criu_train.store.layout import TRASH_PREFIX
from criu_train.store.snapshot import MARKER, Snapshot, is_live


def set_aside(snapshots: Sequence[Snapshot], *, refuse_live: bool, disk: Disk = DISK) -> list[str]:
    """Turn snapshots into trash and return their ids; the caller holds the store's mutex.

    A draft whose writer lives is passed over, or refused with StoreError before anything is touched. So is one
    that was incomplete when it was listed and has been completed since.
    """
    doomed = []
    for one in snapshots:
        # In this order: a writer lets go of its draft only after the marker is there.
        if is_live(one.path) or (one.status == "incomplete" and (one.path / MARKER).exists()):
            if refuse_live:
                raise StoreError(f"{one.id} is being written now", tip="wait for the dump to end")
            continue
        doomed.append(one)
    gone = []
    for one in doomed:
        with suppress(FileNotFoundError):  # somebody else was quicker
            disk.rename(one.path, one.path.with_name(TRASH_PREFIX + one.id))
            gone.append(one.id)
            disk.reached("set-aside")
    if gone:
        disk.fsync(doomed[0].path.parent)
    return gone


def sweep(directory: Path, *, disk: Disk = DISK) -> None:
    """Remove all trash, also what earlier interruptions left. Raises OSError."""
    disk.reached("before-sweep")
    for path in directory.glob(f"{TRASH_PREFIX}*"):
        while path.exists():  # two may sweep at once and take files from under each other
            with suppress(FileNotFoundError):
                shutil.rmtree(path)
        disk.reached("swept-one")
