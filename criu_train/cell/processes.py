"""Processes as the host numbers them, read from /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

# At most; two are enough where nobody comes or goes just then.
_READS = 100


def children(pid: int) -> list[int]:
    """Host PIDs of the direct children of every thread of ``pid`` (empty when it is gone).

    The kernel counts how far it has come in the list, and so passes over one where one before it ends just then
    (proc_pid_children(5) calls it unreliable). What two readings in a row tell is true: one that was counted and has
    ended would be in the first only.
    """
    found = _read_children(pid)
    for _ in range(_READS):
        before, found = found, _read_children(pid)
        if found == before:
            break
    return found


def _read_children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def tree(root: int) -> list[int]:
    """Host PIDs of ``root`` and everything below it, parents first (empty when ``root`` is gone)."""
    if not Path(f"/proc/{root}").exists():
        return []
    found = [root]
    for pid in found:
        found += children(pid)
    return found


def pid_in_cell(pid: int) -> int | None:
    """The number that ``pid`` has in its innermost PID namespace, or None when it is gone."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        status = Path(f"/proc/{pid}/status").read_bytes()  # the process's name in it may be no text
        return int(next(line for line in status.split(b"\n") if line.startswith(b"NSpid:")).split()[-1])
    return None


def start_time(pid: int) -> float | None:
    """When the process started, in seconds since boot, which tells it from a later one of the same PID.

    Not by the clock: that may be set meanwhile.
    """
    with contextlib.suppress(OSError):
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
        return int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")
    return None


def dumpable_bytes(pids: Sequence[int]) -> int:
    """About what CRIU will write: anonymous memory once for each process that maps it, shared memory once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
                if line.startswith((b"Anonymous:", b"Swap:", b"Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    return total


def command_of(pid: int) -> str:
    """The command line for people; the number when the process is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return str(pid)
