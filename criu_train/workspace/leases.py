"""Files that must not be opened: whoever holds a write lease on one is sent a signal then, which ends most programs."""

from __future__ import annotations

import os
import re
from pathlib import Path

# 5: LEASE  ACTIVE    WRITE 4711 fe:00:1179666 0 EOF   (proc_locks(5); device in hexadecimal)
_WRITE_LEASE = re.compile(r"^\d+: LEASE +\S+ +WRITE +-?\d+ ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE)


def write_leases(locks: str | None = None) -> frozenset[tuple[int, int]]:
    """Device and inode of every file that somebody holds a write lease on (fcntl(2)); ``locks``: as /proc/locks."""
    text = Path("/proc/locks").read_text() if locks is None else locks
    return frozenset((os.makedev(int(m[1], 16), int(m[2], 16)), int(m[3])) for m in _WRITE_LEASE.finditer(text))
