"""The large images of a snapshot, put together again from its packs."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from criu_train.archive.captured import PAGE
from criu_train.archive.frame_file import FrameFile
from criu_train.archive.frames import Frames
from criu_train.archive.index import ZERO, PagesIndex, read_index
from criu_train.archive.pack import FRAME_BYTES, FRAME_ROOM, PACKS, PackReader
from criu_train.store.seal import PLAIN, Seal

_MEMORY = 192 << 20  # of unpacked frames, all streams together
_AHEAD = 6  # frames that a stream asks for before it needs them
_RUNS_AHEAD = 4096
_LOADS = 3  # a frame that one stream needs to have loaded more often is kept on the disk
_BLOCK = 1 << 16  # pages whose references are looked at together
_GATHER = 1 << 20  # runs shorter than a quarter of this are gathered before they are written
_NONE = -1

Write = Callable[[memoryview], None]


class StoredPages:
    """An open snapshot. ``names``: the large images and their sizes in bytes.

    Every frame is checked before a byte of it is handed out. ``stream`` may run in several threads at once.
    """

    names: Mapping[str, int]

    def __init__(self, snapshot: Path, index: PagesIndex, packs: list[PackReader], seal: Seal = PLAIN) -> None:
        self.names = {image.name: image.size for image in index.images}
        self._references = index.by_image()
        self._packs = packs
        page_bases = np.cumsum([0, *(pack.entry.pages for pack in packs)])
        frame_bases = np.cumsum([0, *(len(pack) for pack in packs)])
        self._frame_bases = frame_bases
        firsts = [pack.first_pages + base for pack, base in zip(packs, page_bases, strict=False)]
        # The last one is no frame: it stands for zeros, which are frame -1 below.
        self._first_pages = np.concatenate([*firsts, [ZERO]])
        self._frames = Frames(self._load, size=FRAME_BYTES, limit=_MEMORY // FRAME_BYTES)
        # In the store, which has room, but not in the snapshot, which nobody changes.
        self._on_disk = FrameFile(snapshot.absolute().parent.parent, size=FRAME_BYTES, seal=seal)

    @classmethod
    def open(cls, snapshot: Path, index_digest: str | None = None, seal: Seal = PLAIN) -> StoredPages:
        """Read and check ``pages.index`` (against the manifest's digest, if given) and the index of every pack.

        Raises DamagedError.
        """
        index = read_index(snapshot, index_digest, seal)
        with ExitStack() as stack:
            packs = []
            for entry in index.packs:
                packs.append(PackReader(snapshot / PACKS, entry, seal))
                stack.callback(packs[-1].close)
            stored = cls(snapshot, index, packs, seal)
            stack.pop_all()
        return stored

    def check_unused(self) -> None:
        """Read the frames that no image needs. Raises DamagedError."""
        used = np.zeros(self._frame_bases[-1], np.bool_)
        for references in self._references.values():
            used[self._frame_of(references[references != ZERO])] = True
        buffer = memoryview(bytearray(FRAME_ROOM))
        for number in np.flatnonzero(~used).tolist():
            pack, frame = self._locate(number)
            pack.check(frame, buffer)

    def stream(self, name: str, write: Write) -> None:
        """Give the image to ``write`` in order; what it is given must not be kept. Raises DamagedError."""
        out, loads = _Gathered(write, self.names[name]), Counter[int]()
        for run in self._read_ahead(self._runs(self._references[name]), loads):
            if run.frame == _NONE:
                out.add_zeros(run.length)
            elif run.frame in self._on_disk:
                out.add(self._on_disk.read(run.frame, run.offset, run.length))
            else:
                with self._frames.hold(run.frame, loads) as frame:
                    out.add(frame[run.offset : run.offset + run.length])
                    if loads[run.frame] >= _LOADS:
                        self._on_disk.keep(run.frame, frame)
        out.flush()

    def close(self) -> None:
        """Close every pack; no stream may be under way."""
        self._frames.close()
        self._on_disk.close()
        for pack in self._packs:
            pack.close()

    def _read_ahead(self, runs: Iterator[_Run], loads: Counter[int]) -> Iterator[_Run]:
        """The same runs; frames of coming ones are asked for."""
        coming: deque[_Run] = deque()
        needed = Counter[int]()  # frames of ``coming``
        for run in runs:
            coming.append(run)
            if run.frame != _NONE:
                if run.frame not in needed and run.frame not in self._on_disk:
                    self._frames.ahead(run.frame, loads)
                needed[run.frame] += 1
            while len(needed) > _AHEAD or len(coming) > _RUNS_AHEAD:
                ready = coming.popleft()
                yield ready
                needed[ready.frame] -= 1
                if needed[ready.frame] <= 0:
                    del needed[ready.frame]
        yield from coming

    def _runs(self, references: NDArray[np.uint32]) -> Iterator[_Run]:
        """Stretches of zeros, and of pages that follow each other in one frame."""
        for start in range(0, len(references), _BLOCK):
            block = references[start : start + _BLOCK].astype(np.int64)
            zero = block == ZERO
            frames = np.where(zero, _NONE, self._frame_of(block))
            same = frames[1:] == frames[:-1]
            same &= zero[1:] | (block[1:] == block[:-1] + 1)
            starts = np.flatnonzero(np.concatenate([[True], ~same]))
            lengths = np.diff(starts, append=len(block)) * PAGE
            frames = frames[starts]
            offsets = (block[starts] - self._first_pages[frames]) * PAGE
            yield from map(_Run, frames.tolist(), offsets.tolist(), lengths.tolist())

    def _frame_of(self, places: NDArray[np.integer]) -> NDArray[np.int64]:
        return np.searchsorted(self._first_pages, places, side="right") - 1

    def _locate(self, number: int) -> tuple[PackReader, int]:
        which = int(np.searchsorted(self._frame_bases, number, side="right")) - 1
        return self._packs[which], number - int(self._frame_bases[which])

    def _load(self, number: int, buffer: memoryview) -> int:
        pack, frame = self._locate(number)
        return pack.load(frame, buffer)


class _Run(NamedTuple):
    """``length`` bytes at ``offset`` of a frame; zeros where ``frame`` is _NONE."""

    frame: int
    offset: int
    length: int


class _Gathered:
    """Cuts what is written off at ``size`` bytes, and joins what is short."""

    def __init__(self, write: Write, size: int) -> None:
        self._write = write
        self._left = size
        self._buffer = memoryview(bytearray(_GATHER))
        self._filled = 0

    def add(self, data: memoryview) -> None:
        data = data[: self._left]
        if self._filled + len(data) > _GATHER or len(data) >= _GATHER // 4:
            self.flush()
        self._left -= len(data)
        if len(data) >= _GATHER // 4:
            self._write(data)
            return
        self._buffer[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def add_zeros(self, length: int) -> None:
        while length > 0:
            self.add(_ZEROS[: min(length, _GATHER)])
            length -= _GATHER

    def flush(self) -> None:
        if self._filled:
            self._write(self._buffer[: self._filled])
            self._filled = 0


_ZEROS = memoryview(bytes(_GATHER))
