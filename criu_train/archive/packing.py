"""From a capture to packs: every page that no earlier snapshot has is stored once."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from criu_train.archive.captured import PAGE, Captured
from criu_train.archive.digests import CapturedPages, Digests, Recall, digest_pages, first_equal
from criu_train.archive.index import ZERO, ImageEntry, PagesIndex, write_index
from criu_train.archive.known import MAX_PACKS, take_over
from criu_train.archive.pack import FRAME_PAGES, PACKS, RAW, ZSTD, PackEntry, PackWriter, seal_frame, short_digest
from criu_train.archive.packed import Packed
from criu_train.archive.zstd import Bytes, compress
from criu_train.moments import reached
from criu_train.store.durable import fsync_dir, make_private_dir
from criu_train.store.seal import PLAIN, Seal

__all__ = ["Pace", "Packed", "pack"]

_PACK_PAGES = (1 << 30) // PAGE
_GAIN = 0.98  # a frame that zstd does not bring below this is stored as it is
_SAMPLE = 32  # every so many-th page of a frame tells whether to try: what can't be compressed takes zstd longest
_FASTEST, _NEARLY = 1, 1.03  # the level that is taken where it makes so little more than the one that was asked for
_UNWRITTEN = 16 << 20  # what a look at the free space does not see yet: a frame, and what waits to be written
_NEW_COSTS = 15  # what compressing and writing a page takes, in what looking for it takes


class Pace(Protocol):
    """How much of the machine packing may take."""

    def level(self, raw_left: int, done: float) -> int | None:
        """zstd's level for the next frame, None to store it as it is. Also called now and then before the first frame.

        ``raw_left``: bytes still to be compressed and written, at most; it never grows. ``done``: about how much of all
        work is done, from 0 to 1.
        """
        ...

    def in_thread(self) -> None:
        """Called first in every thread that packing starts."""
        ...


def pack(
    captured: Captured,
    snapshot: Path,
    earlier: Sequence[Path],
    *,
    pace: Pace,
    threads: int = 2,
    reserve: int = 64 << 20,
    may_hash: Callable[[int], bool] = lambda _: True,
    recall: Recall | None = None,
    seal: Seal = PLAIN,
) -> Packed:
    """Write ``packs/`` and ``pages.index`` of ``snapshot``, durably.

    ``earlier``: directories of complete snapshots, newest first. Raises OSError, ENOSPC as soon as less than
    ``reserve`` bytes would stay free. ``may_hash`` is asked now and then, with the bytes left to look through, whether
    there is time to look for equal and for known pages; once there is none, the rest is stored as it comes.
    ``recall``: the same one each time makes the next packing quicker. ``seal``: the store's.
    """
    recall = recall or Recall()
    with closing(
        _Packing(captured, snapshot, pace, threads, reserve, may_hash=may_hash, recall=recall, seal=seal)
    ) as packing:
        return packing.run(earlier)


class _Packing:
    def __init__(
        self,
        captured: Captured,
        snapshot: Path,
        pace: Pace,
        threads: int,
        reserve: int,
        *,
        may_hash: Callable[[int], bool],
        recall: Recall,
        seal: Seal,
    ) -> None:
        self._captured = captured
        self._snapshot = snapshot
        self._directory = snapshot / PACKS
        self._pace = pace
        self._threads = threads
        self._reserve = reserve
        self._may_hash = may_hash
        self._recall = recall
        self._seal = seal
        self._hashing_share = _hashing_share(recall.share_new)
        self._pages = CapturedPages(captured)
        self._pack_pages = max(_PACK_PAGES, -(-2 * self._pages.count // MAX_PACKS))
        self._compressed = True

    def close(self) -> None:
        self._pages.release()

    def run(self, earlier: Sequence[Path]) -> Packed:
        make_private_dir(self._directory)
        digests, zero = digest_pages(self._pages, self._hashing, self._recall, self._seal)
        reached("dump-packing")
        first = first_equal(digests)
        distinct = np.flatnonzero((first == np.arange(len(first))) & ~zero)
        known = take_over(earlier, digests[distinct], self._directory, pack_pages=self._pack_pages, seal=self._seal)
        new = distinct[known.places < 0]
        self._recall.share_new = len(new) / max(1, len(first))
        self._hashing_share = _hashing_share(self._recall.share_new)  # known now, and guessed until now
        base = sum(entry.pages for entry in known.packs)
        places = known.places
        places[places < 0] = base + np.arange(len(new))
        references = np.full(len(first), ZERO, np.uint32)
        references[distinct] = places
        references = references[first]
        added = list(self._write(new, digests))
        fsync_dir(self._directory)
        images = tuple(ImageEntry(image.name, image.size) for image in self._captured.large)
        packs = (*known.packs, *added)
        write_index(self._snapshot, PagesIndex(packs, images, references), self._seal)
        zeros, in_known = int(zero.sum()), int((references < base).sum())
        return Packed(
            raw_bytes=sum(image.size for image in images),
            pages=len(first),
            zero_pages=zeros,
            duplicate_pages=len(first) - zeros - in_known - len(new),
            known_pages=in_known,
            new_pages=len(new),
            added_bytes=sum(entry.size for entry in added),
            packs=len(packs),
            compressed=self._compressed,
        )

    def _write(self, new: NDArray[np.int64], digests: Digests) -> Iterator[PackEntry]:
        with ThreadPoolExecutor(self._threads, initializer=self._pace.in_thread) as pool:
            for start in range(0, len(new), self._pack_pages):
                part = new[start : start + self._pack_pages]
                writer = PackWriter(self._directory, self._pace.in_thread)
                try:
                    for numbers, frame in self._frames(part, start, len(new), pool):
                        self._check_space()
                        writer.add(frame.stored, frame.codec, frame.digest, digests[numbers].tobytes())
                    self._check_space()
                    yield writer.finish()
                finally:
                    writer.abort()

    def _frames(
        self, part: NDArray[np.int64], before: int, total: int, pool: ThreadPoolExecutor
    ) -> Iterator[tuple[NDArray[np.int64], _Frame]]:
        """Frames in order, made by the pool a few ahead."""
        ahead: deque[tuple[NDArray[np.int64], Future[_Frame]]] = deque()
        for start in range(0, len(part), FRAME_PAGES):
            numbers = part[start : start + FRAME_PAGES]
            written = before + start
            done = self._hashing_share + (1 - self._hashing_share) * written / total
            level = self._pace.level((total - written) * PAGE, done)
            self._compressed &= level is not None
            ahead.append((numbers, pool.submit(_frame, self._pages, numbers, level, self._seal)))
            if len(ahead) > self._threads + 1:
                numbers, future = ahead.popleft()
                yield numbers, future.result()
        for numbers, future in ahead:
            yield numbers, future.result()

    def _hashing(self, left: int) -> bool:
        self._pace.level(self._pages.count * PAGE, self._hashing_share * (1 - left / self._pages.count))
        return self._may_hash(left * PAGE)

    def _check_space(self) -> None:
        status = os.statvfs(self._directory)
        if status.f_bavail * status.f_frsize < self._reserve + _UNWRITTEN:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory))


def _hashing_share(share_new: float) -> float:
    """How much of all the work looking for pages is, where so much of them is new."""
    return 1 / (1 + _NEW_COSTS * share_new)


@dataclass(frozen=True)
class _Frame:
    stored: memoryview
    codec: int
    digest: bytes


def _frame(pages: CapturedPages, numbers: NDArray[np.int64], level: int | None, seal: Seal) -> _Frame:
    rows = pages.take(numbers)
    raw = rows.reshape(-1).data
    if level is not None and (level := _worthwhile(rows, level)) is not None:
        compressed = compress(raw, level)
        if len(compressed) < _GAIN * len(raw):
            return _sealed(compressed, ZSTD, seal)
    return _sealed(raw, RAW, seal)


def _sealed(data: Bytes, codec: int, seal: Seal) -> _Frame:
    stored = memoryview(seal_frame(data, seal))
    return _Frame(stored, codec, short_digest(stored))


def _worthwhile(rows: NDArray[np.uint8], level: int) -> int | None:
    """Less work where more of it hardly helps: what can't be compressed is tried longest, and of dense floats the
    fastest level makes as much as any."""
    sample = np.ascontiguousarray(rows[::_SAMPLE]).reshape(-1).data
    fast = len(compress(sample, _FASTEST))
    best = fast if level == _FASTEST else len(compress(sample, level))
    if min(fast, best) >= (1 + _GAIN) / 2 * len(sample):
        return None
    return _FASTEST if fast <= _NEARLY * best else level
