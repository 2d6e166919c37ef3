"""One thing seen at one place: what the rules of preflight yield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from criu_train.criu.failures import FAILURES
from criu_train.cuda.command import OLDEST_DRIVER, can_move_aside, driver_version, uses_cuda

Level = Literal["blocks", "warns", "fine"]

_BY_NAME = {failure.name: failure for failure in FAILURES}


@dataclass(frozen=True)
class Notice:
    """``place``: where, as people find it again; ``count``: how many, for what is fine."""

    level: Level
    what: str
    why: str
    tip: str = ""
    place: str = ""
    count: int = 1


def fine(what: str, why: str, *, place: str = "", count: int = 1) -> Notice:
    """Noticed, and carried."""
    return Notice("fine", what, why, place=place, count=count)


def blocks(name: str, why: str, place: str, *blanks: object) -> Notice:
    """What a dump would fail with, in the words in which it would be explained (a row of ``criu/failures.py``)."""
    failure = _BY_NAME[name]
    return Notice("blocks", failure.what.format(*blanks), why, failure.tip.format(*blanks), place)


def io_uring(place: str, *, in_a_cell: bool) -> Notice:
    """A ring. Outside of a cell it tells only what will be different within ``run``."""
    if in_a_cell:
        return blocks("io-uring", "the queues of io_uring live in the kernel; this one was handed in", place)
    return Notice(
        "warns",
        "a task uses io_uring, which nobody gets within `run`",
        "its queues live in the kernel and CRIU can't read them; libraries do without it when it is refused",
        "try it out as `run` would start it: `criu-train doctor -- COMMAND`",
        place,
    )


def gpu(pid: int, device: str, place: str) -> Notice:
    """A GPU's device, open or mapped."""
    if device.startswith("/dev/nvidia"):
        if uses_cuda([pid]) and can_move_aside(driver_version()):
            return fine("descriptors and mappings of GPUs", "GPU memory is moved to main memory for a dump", place="")
        return blocks("gpu", f"it takes CUDA, and NVIDIA's driver {OLDEST_DRIVER} or newer, to move it aside", place)
    return blocks("gpu", "the state lies in the card and its driver, which only NVIDIA's moves to main memory", place)
