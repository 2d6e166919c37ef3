"""Room on the disk for one more snapshot."""

from __future__ import annotations

import shutil
from pathlib import Path

from criu_train.errors import DumpFailedError
from criu_train.store.store import Store
from criu_train.units import format_size

# Left free on the disk that holds the store: the training may write there too, and a dump must not starve it.
_RESERVE_BYTES = 64 << 20


def check_room(store: Store, spilled: int) -> list[Path]:
    """The earlier snapshots, newest first; DumpFailedError where one more is not likely to fit.

    It will add about as much as the newest did, and ``spilled`` bytes that do not fit into memory lie there meanwhile.
    A disk that fills up all the same fails the dump.
    """
    if spilled and not store.seal.is_plain:
        raise DumpFailedError(
            f"{format_size(spilled)} do not fit into the memory for captures, and may not go to the disk unencrypted",
            tip="raise --memory-limit, or see that more memory is free",
        )
    free = shutil.disk_usage(store.layout.root).free
    needed = store.added_by_newest() + spilled + _RESERVE_BYTES
    if needed > free:
        raise DumpFailedError(
            f"not enough room for a snapshot: about {format_size(needed)} needed, {format_size(free)} free",
            tip="free some space, `criu-train snapshot prune --keep 1`, or put the store elsewhere with --store",
        )
    return store.earlier()
