"""Memory that captures are taken into: touched beforehand, kept from one dump to the next, grown when the tree grows.

Fresh pages are what makes plain dumps slow: the kernel clears and accounts for each one while the tree stands still.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Callable

from criu_train.archive.budget import spare_memory
from criu_train.archive.captured import PAGE

_HUGE = 2 << 20
# Offsets from one segment to the next, far more than any segment has.
_SEGMENT = 1 << 44
# Growing by less is not worth a segment of its own.
_LEAST = 64 << 20
# Touched at one go, between two looks at what memory is left.
_STEP = 256 << 20
_MADV_POPULATE_WRITE = 23  # Linux 5.14
# The training goes on meanwhile; yet the dump waits for this.
_GROWING_NICE = 5


class Arena:
    """``limit``: the most bytes ever taken, None for half of what would be free without us."""

    def __init__(self, limit: int | None = None, spare: Callable[[], int] = spare_memory) -> None:
        self._limit = limit
        self._spare = spare
        self._segments: list[memoryview] = []
        self.size = 0

    def grow(self, wanted: int) -> None:
        """Have ``wanted`` bytes, or as many as may be taken."""
        if wanted <= self.size:
            return
        limit = (self._spare() + self.size) // 2 if self._limit is None else self._limit
        allowed = limit - self.size
        size = min(_round_up(max(wanted - self.size, _LEAST), _HUGE), allowed // _HUGE * _HUGE)
        if size > 0:
            thread = threading.Thread(target=self._add, args=(size,))
            thread.start()
            thread.join()

    def room(self, offset: int) -> int:
        """Bytes from here to the end of the segment; 0 where there is none."""
        number, within = divmod(offset, _SEGMENT)
        return len(self._segments[number]) - within if number < len(self._segments) else 0

    def following(self, offset: int) -> int:
        """Where the next segment starts, or would start: extents never reach over the end of one."""
        return (offset // _SEGMENT + 1) * _SEGMENT

    def view(self, offset: int, length: int) -> memoryview:
        """Memory that lies within one segment."""
        number, within = divmod(offset, _SEGMENT)
        return self._segments[number][within : within + length]

    def _add(self, size: int) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _GROWING_NICE)
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, MemoryError):
            return
        for advice in (mmap.MADV_HUGEPAGE, mmap.MADV_DONTDUMP):
            with contextlib.suppress(OSError):  # a kernel without
                memory.madvise(advice)
        touched = 0
        while touched < size:
            step = min(_STEP, size - touched)
            if self._spare() < step or not _touch(memory, touched, step):
                break
            touched += step
        if touched:
            self._segments.append(memoryview(memory)[:touched])
            self.size += touched


def _touch(memory: mmap.mmap, offset: int, length: int) -> bool:
    """Have the kernel give us the pages now. Whether it could."""
    try:
        memory.madvise(_MADV_POPULATE_WRITE, offset, length)
    except OSError as error:
        if error.strerror != os.strerror(22):  # EINVAL: an older kernel
            return False
        with memoryview(memory) as view:
            view[offset : offset + length : PAGE] = bytes(length // PAGE)
    return True


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
