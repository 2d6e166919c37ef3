"""Which packs of an earlier snapshot are taken over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from criu_train.archive.damage import DamagedError
from criu_train.archive.digests import Digests, find
from criu_train.archive.index import read_index
from criu_train.archive.pack import FRAME_ROOM, PACKS, PackEntry, PackReader
from criu_train.store.layout import sequence_of
from criu_train.store.seal import PLAIN, Seal

MAX_PACKS = 63
_WORTH = 0.25  # of a pack's pages
_REREAD = 64 << 20  # stored bytes of old packs that are read again at every dump


@dataclass(frozen=True)
class Known:
    """Packs that were linked, and for every wanted digest its page in them, counted through in order, or -1."""

    packs: tuple[PackEntry, ...]
    places: NDArray[np.int64]


def take_over(earlier: Sequence[Path], wanted: Digests, packs: Path, *, pack_pages: int, seal: Seal = PLAIN) -> Known:
    """Link into the directory ``packs`` what is worth it of the newest readable snapshot's packs.

    ``wanted``: distinct digests. ``pack_pages``: how many pages a new pack holds. Packs of which less than a
    quarter is wanted are left behind, so that dead pages stay bounded: writing the living ones of fuller packs anew
    costs more than the dead ones do. Damaged packs are left behind too, since rot must not spread to new snapshots.
    """
    with ExitStack() as stack:
        readers = _newest(earlier, stack, seal)
        turn = sequence_of(earlier[0].name) or 0 if earlier else 0
        found = find(wanted, np.concatenate([np.empty((0, 2), np.uint64), *(r.page_digests() for r in readers)]))
        ends = np.cumsum([reader.entry.pages for reader in readers], dtype=np.int64)
        holder = np.where(found < 0, len(readers), np.searchsorted(ends, found, side="right"))
        live = np.bincount(holder, minlength=len(readers)).tolist()
        kept = _worth(live[: len(readers)], readers, len(wanted), pack_pages)
        rotten = _rotten([readers[number] for number in kept], turn)
        kept = [number for number in kept if readers[number] not in rotten and _link(readers[number], packs)]
    moved = np.zeros(len(readers) + 1, np.int64)  # by how much pages move up as packs before them are left behind
    entries = [readers[number].entry for number in kept]
    for number, start in zip(kept, np.cumsum([0, *(entry.pages for entry in entries)]), strict=False):
        moved[number] = ends[number] - readers[number].entry.pages - start
    places = np.where(np.isin(holder, kept), found - moved[holder], -1)
    return Known(tuple(entries), places)


def _newest(earlier: Sequence[Path], stack: ExitStack, seal: Seal) -> list[PackReader]:
    """Readable packs of the newest snapshot whose index can be read."""
    for snapshot in earlier:
        readers = []
        try:
            entries = read_index(snapshot, seal=seal).packs
        except DamagedError:
            continue
        for entry in entries:
            try:
                reader = PackReader(snapshot / PACKS, entry, seal)
            except DamagedError:
                continue
            stack.callback(reader.close)
            readers.append(reader)
        return readers
    return []


def _worth(live: Sequence[int], readers: Sequence[PackReader], wanted: int, pack_pages: int) -> list[int]:
    """Numbers of the packs to take over; ``live``: how many pages of each are wanted."""
    kept = [
        number for number, reader in enumerate(readers) if live[number] and live[number] >= reader.entry.pages * _WORTH
    ]
    by_use = sorted(kept, key=lambda number: live[number])
    while by_use:
        unknown = wanted - sum(live[number] for number in by_use)
        if len(by_use) + -(-unknown // pack_pages) <= MAX_PACKS:
            break
        del by_use[0]
    return sorted(by_use)


def _rotten(readers: list[PackReader], turn: int) -> list[PackReader]:
    """Read some frames again, from the disk, other ones each turn; the packs with a wrong one."""
    rotten: list[PackReader] = []
    total = sum(reader.entry.size for reader in readers)
    if not total:
        return rotten
    buffer = memoryview(bytearray(FRAME_ROOM))
    start = turn * _REREAD % total
    for at in (start, start - total):  # what lies beyond the end is at the beginning
        base = 0
        for reader in readers:
            low, high = at - base, at - base + _REREAD
            begins = reader.offsets
            ends = begins + reader.frames["stored"]
            due = np.flatnonzero((begins < high) & (ends > low))
            if len(due):
                reader.forget_cache()
            try:
                for number in due.tolist():
                    reader.check(number, buffer)
            except DamagedError:
                rotten.append(reader)
            base += reader.entry.size
    return rotten


def _link(reader: PackReader, packs: Path) -> bool:
    try:
        os.link(reader.path, packs / reader.path.name, follow_symlinks=False)
    except OSError:
        return False
    return True
