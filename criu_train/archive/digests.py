"""Which pages of a capture are zeros, and which are equal."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from criu_train.archive.captured import PAGE, Captured, Extent
from criu_train.archive.pack import DIGEST_BYTES
from criu_train.store.seal import PLAIN, Seal

_PIECE = 1024  # pages looked at between two questions for the pace

Rows = NDArray[np.uint8]
Digests = NDArray[np.uint64]  # shape (pages, 2); both 0 where there is none: a page of zeros, or no time to take it


class CapturedPages:
    """The large images of a capture as pages, counted through all images in order. ``release`` lets the memory go."""

    def __init__(self, captured: Captured) -> None:
        self._stretches: list[Rows] = []
        for image in captured.large:
            for extent in image.extents:
                self._stretches += _rows(captured.memory.view(extent), extent)
        counts = [len(stretch) for stretch in self._stretches]
        self._ends = np.cumsum(counts, dtype=np.int64)
        self.count = int(sum(counts))

    def take(self, numbers: NDArray[np.int64]) -> Rows:
        """The pages with these ascending numbers; not copied where they follow each other in memory."""
        first, last = int(numbers[0]), int(numbers[-1])
        which = int(np.searchsorted(self._ends, first, side="right"))
        if last - first + 1 == len(numbers) and last < self._ends[which]:
            stretch = self._stretches[which]
            start = first - int(self._ends[which]) + len(stretch)
            return stretch[start : start + len(numbers)]
        out = np.empty((len(numbers), PAGE), np.uint8)
        done = 0
        while done < len(numbers):
            which = int(np.searchsorted(self._ends, numbers[done], side="right"))
            stretch, end = self._stretches[which], int(self._ends[which])
            until = int(np.searchsorted(numbers, end))
            np.take(stretch, numbers[done:until] - (end - len(stretch)), axis=0, out=out[done:until], mode="clip")
            done = until
        return out

    def pieces(self) -> Iterator[Rows]:
        """All pages, some at a time."""
        for stretch in self._stretches:
            for start in range(0, len(stretch), _PIECE):
                yield stretch[start : start + _PIECE]

    def release(self) -> None:
        """Drop every reference to the capture's memory."""
        self._stretches.clear()


def _rows(view: memoryview, extent: Extent) -> Iterator[Rows]:
    """Whole pages where they lie; a last piece is copied and filled up with zeros."""
    whole = extent.length // PAGE * PAGE
    if whole:
        yield np.frombuffer(view, np.uint8, whole).reshape(-1, PAGE)
    if whole < extent.length:
        last = np.zeros((1, PAGE), np.uint8)
        last[0, : extent.length - whole] = np.frombuffer(view, np.uint8, extent.length - whole, whole)
        yield last


class Recall:
    """Digests taken before, found again by a hash that takes much less time. It keeps 32 bytes a page.

    It tells pages of this process's own memory apart and is never stored: 128 bits of XXH3 under a random seed, so
    that nobody can prepare two pages that it takes for one. ``share_new``: how much of the last capture was new.
    """

    def __init__(self) -> None:
        self.share_new = 1.0
        self._seed = secrets.randbits(64)
        self._keys = np.empty(0, np.uint64)  # ascending
        self._rest = np.empty(0, np.uint64)
        self._digests: Digests = np.empty((0, 2), np.uint64)
        self._zero = self.marks(np.zeros((1, PAGE), np.uint8))[0]

    def marks(self, rows: Rows) -> Digests:
        """The fast hash of every page, shape (pages, 2)."""
        flat, seed = rows.reshape(-1).data, self._seed
        joined = b"".join([xxh3_128_digest(flat[at : at + PAGE], seed) for at in range(0, len(flat), PAGE)])
        return np.frombuffer(joined, "<u8").reshape(-1, 2)

    def zeros(self, marks: Digests) -> NDArray[np.bool_]:
        """Which pages are all zeros."""
        return np.asarray((marks == self._zero).all(axis=1))

    def digests(self, marks: Digests) -> Digests:
        """The digest of every page that was there before, both halves 0 for others."""
        if not len(self._keys):
            return np.zeros((len(marks), 2), np.uint64)
        order = np.argsort(marks[:, 0])  # so that memory is walked through once
        at = np.empty(len(marks), np.int64)
        at[order] = np.minimum(np.searchsorted(self._keys, marks[order, 0]), len(self._keys) - 1)
        same = (self._keys[at] == marks[:, 0]) & (self._rest[at] == marks[:, 1])
        return np.where(same[:, None], self._digests[at], np.uint64(0))

    def replace(self, marks: Digests, digests: Digests) -> None:
        """From now on it is these pages that are known; those without a digest are left out."""
        self._keys = self._rest = np.empty(0, np.uint64)
        self._digests = np.empty((0, 2), np.uint64)  # gone before the new ones are made
        numbers = np.flatnonzero(digests.any(axis=1))
        self._keys, which = np.unique(marks[numbers, 0], return_index=True)
        self._rest, self._digests = marks[numbers[which], 1], digests[numbers[which]]


def digest_pages(
    pages: CapturedPages, between: Callable[[int], bool], recall: Recall, seal: Seal = PLAIN
) -> tuple[Digests, NDArray[np.bool_]]:
    """The 16-byte digest of every page that is not all zeros, and which pages are.

    ``between`` is told now and then how many pages are left; once it says no, no more digests are taken.
    ``seal``: whose digests they are.
    """
    digests, marks = np.zeros((pages.count, 2), np.uint64), np.zeros((pages.count, 2), np.uint64)
    zero = np.empty(pages.count, np.bool_)
    done, going_on = 0, True
    for piece in pages.pieces():
        here = slice(done, done + len(piece))
        going_on &= between(pages.count - done)
        if going_on:
            marks[here] = recall.marks(piece)
            zero[here] = recall.zeros(marks[here])
            digests[here] = recall.digests(marks[here])
            new = np.flatnonzero(~zero[here] & ~digests[here].any(axis=1))
            flat = piece.reshape(-1).data
            joined = b"".join([seal.hasher(flat[at : at + PAGE]).digest(DIGEST_BYTES) for at in (new * PAGE).tolist()])
            digests[done + new] = np.frombuffer(joined, "<u8").reshape(-1, 2)
        else:
            zero[here] = ~piece.view(np.uint64).any(axis=1)
        done += len(piece)
    recall.replace(marks, digests)
    return digests, zero


def first_equal(digests: Digests) -> NDArray[np.int64]:
    """For every page the first one with the same bytes; a page without a digest is like no other.

    Classes are made by half of the digest and compared by the other: two contents that share the first half are
    kept apart, only that the second is then stored as often as it occurs.
    """
    half = digests[:, 0]
    order = np.argsort(half)
    begins = np.empty(len(half), np.bool_)
    begins[:1] = True
    np.not_equal(half[order[1:]], half[order[:-1]], out=begins[1:])
    starts = np.flatnonzero(begins)
    first = np.empty(len(half), np.int64)
    if len(half):
        first[order] = np.repeat(np.minimum.reduceat(order, starts), np.diff(starts, append=len(half)))
    apart = np.flatnonzero((digests[first, 1] != digests[:, 1]) | ~digests.any(axis=1))
    first[apart] = apart
    return first


def find(wanted: Digests, known: Digests) -> NDArray[np.int64]:
    """For every wanted digest its place in ``known``, or -1; no digest is found nowhere."""
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(known[:, 0])
    asked = np.argsort(wanted[:, 0])  # searching in order is ten times faster: memory is walked through once
    at = np.empty(len(wanted), np.int64)
    at[asked] = np.searchsorted(known[order, 0], wanted[asked, 0])
    places = order[np.minimum(at, len(known) - 1)]
    return np.where((known[places] == wanted).all(axis=1) & wanted.any(axis=1), places, -1)
