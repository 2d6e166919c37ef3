"""Whether stopped tasks are what the images say: who is there, how they hang together, their maps and descriptors."""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from criu_train.criu.images import Images, Task

_NAMED = 5  # in a line
_STOPPED = "TtZX"
_PAUSE_S = 0.02


def differences(images: Images, proc: Path = Path("/proc"), *, settle_s: float = 0.0) -> Iterator[str]:
    """In words, one each; none where the tree is the one that was dumped. PIDs are those of ``proc``.

    ``settle_s``: how long tasks may take to stop, each of which was told to before it could run a line: where
    processors are short it comes to its stop a while later.
    """
    until = time.monotonic() + settle_s
    for task in images.tasks():
        try:
            yield from _of_task(images, task, proc / str(task.pid), until)
        except FileNotFoundError:
            yield f"process {task.pid} ({task.comm}) is not there"


def _status(proc: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)


def _of_task(images: Images, task: Task, proc: Path, until: float) -> Iterator[str]:
    name = f"process {task.pid} ({task.comm})"
    while (status := _status(proc))["State"][0] not in _STOPPED and time.monotonic() < until:
        time.sleep(_PAUSE_S)
    if status["State"][0] in "ZX":  # has neither maps nor descriptors
        return
    if status["State"][0] not in _STOPPED:
        yield f"{name} is not stopped: {status['State']}"
    threads = {int(path.name) for path in (proc / "task").iterdir()}
    if threads != set(task.threads):
        yield f"{name} has {len(threads)} threads rather than {len(task.threads)}"
    if task.ppid and int(status["PPid"]) != task.ppid:
        yield f"{name} is a child of {status['PPid']} rather than of {task.ppid}"
    if missing := _missing_maps(images, task.pid, proc):
        yield f"{name} lacks memory at {', '.join(missing[:_NAMED])}"
    if lost := images.descriptors(task.pid) - {int(number) for number in os.listdir(proc / "fd")}:  # noqa: PTH208
        yield f"{name} lacks the descriptors {', '.join(map(str, sorted(lost)[:_NAMED]))}"


def _missing_maps(images: Images, pid: int, proc: Path) -> list[str]:
    """By where they begin: the kernel joins neighbours that are alike."""
    spans: list[tuple[int, int, str]] = []
    for line in (proc / "maps").read_text().splitlines():
        span, protection, *_ = line.split()
        start, end = (int(part, 16) for part in span.split("-"))
        spans.append((start, end, protection[:3]))
    starts = [start for start, _, _ in spans]
    missing = []
    for one in images.maps(pid):
        number = bisect_right(starts, one.start) - 1
        if number < 0 or one.start >= spans[number][1] or spans[number][2] != one.protection:
            missing.append(f"{one.start:x}")
    return missing
