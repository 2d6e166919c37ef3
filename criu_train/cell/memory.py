"""Whether the kernel killed for want of memory. Standard library only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory so far, to be compared with an earlier call's.

    Those of our control group where the kernel counts them there, which the training shares unless it moved itself;
    otherwise (the topmost group of version 2, no control groups to be seen) those of the whole machine, so that
    another program's end can then be taken for ours.
    """
    for counter in (*_counters(), "/proc/vmstat"):
        with contextlib.suppress(OSError, StopIteration, ValueError), open(counter, "rb") as file:  # noqa: PTH123
            return next(int(line.split()[1]) for line in file if line.startswith(b"oom_kill "))
    return 0


def _counters() -> Iterator[str]:
    with contextlib.suppress(OSError, ValueError):
        groups = _our_groups()
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            lines = file.read().splitlines()
        for line in lines:
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(" ", 2)
            root, place = left.split(" ")[3:5]
            if kind == "cgroup" and "memory" in options.split(",") and "memory" in groups:
                yield f"{place}{_below(root, groups['memory'])}/memory.oom_control"
            elif kind == "cgroup2" and "" in groups:
                yield f"{place}{_below(root, groups[''])}/memory.events"


def _our_groups() -> dict[str, str]:
    """The path of our group by controller; version 2 has the empty name (cgroups(7))."""
    groups: dict[str, str] = {}
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _below(root: str, path: str) -> str:
    """``path`` as it is called below a mount that shows ``root`` only."""
    return path.removeprefix(root.rstrip("/")).rstrip("/")
