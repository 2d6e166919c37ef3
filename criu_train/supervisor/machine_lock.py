"""One CRIU at a time on a machine.

CRIU names the hard links it makes of deleted-but-linked files `link_remap.N` by a number of its own, in directories
that jobs share (/dev/shm): two dumps or restores at once could take each other's.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def machine_lock(directory: Path, limit_s: float) -> AsyncIterator[None]:
    """Hold the machine's CRIU lock. Raises TimeoutError when another job keeps it longer than ``limit_s``."""
    fd = os.open(directory / "criu.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    waiting = asyncio.get_running_loop().run_in_executor(None, fcntl.flock, fd, fcntl.LOCK_EX)
    try:
        await asyncio.wait_for(asyncio.shield(waiting), limit_s)
    except BaseException:
        # The thread still waits in flock(2); whenever it gets the lock, closing gives it back.
        waiting.add_done_callback(lambda _: os.close(fd))
        raise
    try:
        yield
    finally:
        os.close(fd)
