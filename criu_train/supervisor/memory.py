"""A supervisor lives for weeks beside a training: what it does not need any more goes back to the machine."""

from __future__ import annotations

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_BLOCK = 1 << 20


def give_large_blocks_back() -> None:
    """Have blocks from 1 MiB on returned as soon as they are freed.

    Left to itself, glibc raises that bound to the largest block that was freed, up to 32 MiB (mallopt(3)), and each
    thread that ever put a file back keeps its buffers: 20 MiB more after three restores, measured.
    """
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _BLOCK)
