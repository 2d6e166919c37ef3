"""One CRIU at a time on a machine.

CRIU names the hard links it makes of deleted-but-linked files `link_remap.N` by a number of its own, in directories
that jobs share (/dev/shm): two dumps or restores at once could take each other's.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

# A thread that waits in flock(2) can't be called back, so we ask again: at first soon, then ten times a second.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.005, 0.1


@asynccontextmanager
async def machine_lock(
    directory: Path, limit_s: float, *, must_wait: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """Hold the machine's CRIU lock. ``must_wait`` is called, once, where another job has it for more than an instant.

    Raises TimeoutError when another job keeps it longer than ``limit_s``.
    """
    fd = os.open(directory / "criu.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _take(fd, time.monotonic() + limit_s, must_wait)
        yield
    finally:
        os.close(fd)


async def _take(fd: int, deadline: float, must_wait: Callable[[], None]) -> None:
    pause, told = _FIRST_PAUSE_S, False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
            if pause == _LAST_PAUSE_S and not told:
                told = True
                must_wait()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_S)
        else:
            return
