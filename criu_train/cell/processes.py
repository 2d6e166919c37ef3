"""Processes as the host numbers them, read from /proc."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def children(pid: int) -> list[int]:
    """Host PIDs of the direct children of every thread of ``pid`` (empty when it is gone)."""
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
    with contextlib.suppress(OSError, StopIteration):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])
    return None


def start_time(pid: int) -> float | None:
    """When the process started (seconds since the epoch), which tells it from a later one of the same PID."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def memory_bytes(pids: list[int]) -> int:
    """Resident private and shared memory of the processes together, shared pages counted once each process."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_info().rss
    return total
