"""Frames in memory: read ahead by a few threads, shared by all who need them, never more than fits."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock


class _Slot:
    __slots__ = ("awaited", "buffer", "future", "holders")

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self.future: Future[int]
        self.holders = 0
        self.awaited = False  # somebody asked for it ahead and has not come yet

    def is_idle(self) -> bool:
        return not self.holders and self.future.done()


class Frames:
    """At most ``limit`` frames of ``size`` bytes, and one more for each thread that holds one beyond.

    ``load(number, buffer)`` fills the buffer and returns the number of bytes; what it raises is raised to everybody
    who asks for that frame.
    """

    def __init__(self, load: Callable[[int, memoryview], int], *, size: int, limit: int) -> None:
        self._load = load
        self._size = size
        self._limit = limit
        self._slots: OrderedDict[int, _Slot] = OrderedDict()  # the one not used for longest first
        # Huge pages where there are any: touching them first takes a tenth of the time.
        memory = mmap.mmap(-1, limit * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = memoryview(memory)
        self._free = [whole[at : at + size] for at in reversed(range(0, len(whole), size))]
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "frames")

    def ahead(self, number: int, loads: Counter[int]) -> None:
        """This frame will be needed soon: have it loaded if there is room. ``loads`` counts what has to be."""
        with self._lock:
            slot = self._slots.get(number)
            if slot is None and self._make_room(awaited=False):
                slot = self._start(number, loads)
            if slot is not None:
                slot.awaited = True
                self._slots.move_to_end(number)

    @contextmanager
    def hold(self, number: int, loads: Counter[int]) -> Iterator[memoryview]:
        """The bytes of a frame; they stay as long as the block lasts. ``loads`` counts what has to be loaded."""
        with self._lock:
            slot = self._slots.get(number)
            if slot is None:
                if not self._make_room(awaited=False):
                    self._make_room(awaited=True)
                slot = self._start(number, loads)
            slot.holders += 1
            slot.awaited = False
            self._slots.move_to_end(number)
        try:
            yield slot.buffer[: slot.future.result()]
        finally:
            with self._lock:
                slot.holders -= 1

    def close(self) -> None:
        """Drop what is queued, wait for what is under way, and give the memory back."""
        self._pool.shutdown(cancel_futures=True)
        # Whoever loads knows us as we know them: else it would stay until the next collection of garbage.
        self._slots.clear()
        self._free.clear()

    def _start(self, number: int, loads: Counter[int]) -> _Slot:
        loads[number] += 1
        slot = _Slot(self._free.pop() if self._free else memoryview(bytearray(self._size)))
        slot.future = self._pool.submit(self._load, number, slot.buffer)
        self._slots[number] = slot
        return slot

    def _make_room(self, *, awaited: bool) -> bool:
        """Whether one more frame fits, after what is not needed has gone; with ``awaited`` what is, later, as well."""
        excess = len(self._slots) - self._limit + 1
        if excess > 0:
            idle = [number for number, slot in self._slots.items() if slot.is_idle() and slot.awaited <= awaited]
            for number in idle[:excess]:
                self._free.append(self._slots.pop(number).buffer)
        return len(self._slots) < self._limit
