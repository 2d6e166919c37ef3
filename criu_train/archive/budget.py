"""How much memory captures may take without harm to the training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


def spare_memory() -> int:
    """Bytes that could be taken now before the machine, or a cgroup that we are in, runs out of memory."""
    return min([int(psutil.virtual_memory().available), *_cgroups()])


def _cgroups() -> Iterator[int]:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _left(_V2, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            yield from _left(_V1, path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(top: Path, path: str, limit: str, used: str, reclaimable: str) -> Iterator[int]:
    """What is left in the cgroup and in each one around it; a container often sees its own as the top."""
    group = top / path.lstrip("/")
    for place in (group, *group.parents):
        if not place.is_relative_to(top):
            return
        try:
            stat = dict(line.split() for line in (place / "memory.stat").read_text(encoding="utf-8").splitlines())
            most = int((place / limit).read_text(encoding="utf-8"))
            taken = int((place / used).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, or "max"
            continue
        yield max(0, most - taken + int(stat.get(reclaimable, 0)))
