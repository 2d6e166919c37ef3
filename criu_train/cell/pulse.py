"""Signs of life of a process tree: what its threads do and used, how far it is in its files.

All of it is read from /proc; no file of the tree is touched, so that a dead disk of its own holds up nobody.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_WAITS = "SZXP"  # asleep, ended, parked: not running, stopped, traced, or held by a disk
_NO_FILES = ("/dev/", "/proc/", "/sys/", "/memfd:")
# What a thread that only looks around now and then does not use: a share of one processor, and no less than three
# ticks, in which the kernel counts. PyTorch's launcher looks after its workers ten times a second, and uses 1 %.
_MOVES, _LEAST_S = 0.02, 0.03
# What one that is at work uses at least.
_WORKS = 0.1


class Thread(NamedTuple):
    """``state`` as proc_pid_stat(5) has it; ``used_s``: time on a processor."""

    state: str
    used_s: float


@dataclass(frozen=True)
class Pulse:
    """One look at a tree. ``at``: on the monotonic clock; ``positions``: in files, by process and descriptor;
    ``output``: bytes that came out so far."""

    at: float
    threads: Mapping[int, Thread]
    positions: Mapping[tuple[int, str], bytes] = field(default_factory=dict)
    output: int = 0

    @property
    def waits(self) -> bool:
        """Whether nobody does anything but wait, nor is kept from doing more."""
        return all(thread.state in _WAITS for thread in self.threads.values())


def threads_of(pids: Sequence[int]) -> dict[int, Thread]:
    """The threads of these processes by number; those that end meanwhile are passed over."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.scandir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    # After the name, which may hold anything.
                    told = Path(task.path, "stat").read_bytes().rpartition(b") ")[2].split()
                    found[int(task.name)] = Thread(told[0].decode(), (int(told[11]) + int(told[12])) * _TICK_S)
    return found


def take_pulse(pids: Sequence[int], output: Path) -> Pulse:
    """Look at these processes and at the file that their output goes to."""
    with contextlib.suppress(OSError):
        return Pulse(time.monotonic(), threads_of(pids), dict(_positions(pids)), output.stat().st_size)
    return Pulse(time.monotonic(), threads_of(pids), dict(_positions(pids)))


def moved(before: Pulse, after: Pulse) -> bool:
    """Whether the tree has done anything between the two looks: written, read, begun or ended a thread, computed."""
    return (
        before.threads.keys() != after.threads.keys()
        or before.positions != after.positions
        or before.output != after.output
        or _most_used(before.threads, after.threads) > max(_MOVES * (after.at - before.at), _LEAST_S)
    )


def worked(before: Mapping[int, Thread], after: Mapping[int, Thread], seconds: float) -> bool:
    """Whether a thread was at work in these seconds, rather than waiting for something most of the time."""
    return _most_used(before, after) >= max(_WORKS * seconds, _LEAST_S)


def _most_used(before: Mapping[int, Thread], after: Mapping[int, Thread]) -> float:
    return max((after[tid].used_s - before[tid].used_s for tid in after.keys() & before.keys()), default=0.0)


def _positions(pids: Sequence[int]) -> Iterator[tuple[tuple[int, str], bytes]]:
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    name = os.readlink(f"/proc/{pid}/fd/{fd}")  # noqa: PTH115
                    if name.startswith("/") and (not name.startswith(_NO_FILES) or name.startswith("/dev/shm/")):  # noqa: S108
                        yield (pid, fd), Path(f"/proc/{pid}/fdinfo/{fd}").read_bytes().partition(b"\n")[0]
