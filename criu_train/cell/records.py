"""What the cell is told and what it tells, as the supervisor sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from criu_train.errors import CommandNotRunnableError, CriuTrainError


class CellLostError(CriuTrainError, ConnectionError):
    """The cell ended, or does not answer any more, while something was asked of it."""

    def __init__(self, message: str = "the cell is gone") -> None:
        super().__init__(message, tip="look into init.log in the store and the kernel's log (dmesg)")


@dataclass(frozen=True)
class CellSpec:
    """What init must know: the lock's descriptor to keep, its door, where to write, what to watch.

    ``facts`` are written to ``cell_file`` beside the way the training ended. ``roots`` are directories whose files
    others may touch as well; ``exclude`` are directories never journaled, but for the ``include`` files in them.
    ``log`` is where init itself complains, should it ever have to. ``door`` is the path of the socket by which a later
    supervisor comes; ``stop_after_s``: without a supervisor the training is told to end itself, and has so long for it
    (None: it goes on).
    """

    lock_fd: int
    door: Path
    cell_file: Path
    journal: Path
    roots: tuple[str, ...]
    exclude: tuple[str, ...]
    include: tuple[str, ...]
    facts: Mapping[str, Any]
    log: Path
    stop_after_s: float | None = None

    def settings(self, door_fd: int) -> dict[str, Any]:
        """What init is told of it."""
        return {
            "lock_fd": self.lock_fd,
            "door_fd": door_fd,
            "stop_after_s": self.stop_after_s,
            "cell_file": str(self.cell_file),
            "journal": str(self.journal),
            "roots": self.roots,
            "exclude": self.exclude,
            "include": self.include,
            "facts": dict(self.facts),
        }


@dataclass(frozen=True)
class Ended:
    """How the training ended: ``code`` is its exit code, or -n for signal n."""

    code: int
    out_of_memory: bool = False
    cell_lost: bool = False

    @property
    def exit_code(self) -> int:
        """As a shell would report it: 128+n for signal n."""
        return self.code if self.code >= 0 else 128 - self.code


@dataclass(frozen=True)
class CriuExit:
    """How one CRIU ended: ``code`` is its exit code, or -n for signal n.

    ``problem`` tells why it could not even be started (then ``code`` is 126), and is empty otherwise. ``broke_off``: it
    ended in the middle of its work, killed or not, and put nothing right; everybody is held until the cell is released.
    """

    code: int
    timed_out: bool
    was_stopped: bool
    problem: str = ""
    broke_off: bool = False

    @property
    def killed(self) -> bool:
        return self.code < 0


@dataclass(frozen=True)
class Cut:
    """The tree stands still: the cell's PID counter and how far the journal reaches."""

    last_pid: int
    journal_offset: int


def not_runnable(program: str, *, errno: int, step: str) -> CommandNotRunnableError:
    reason = os.strerror(errno)
    if step == "exec" and errno in (2, 20):
        return CommandNotRunnableError(
            f"command not found: {program}", tip="check the spelling, or give its full path", exit_code=127
        )
    if step == "exec":
        return CommandNotRunnableError(
            f"command can't be executed: {program} ({reason})", tip="is it executable (chmod +x)?", exit_code=126
        )
    if step == "capabilities":
        return CommandNotRunnableError(
            f"the training's rights could not be reduced: {reason}",
            tip="give us CAP_SETPCAP, or let the training keep all of them with --capabilities keep",
            exit_code=125,
        )
    return CommandNotRunnableError(
        f"the training could not be started: {reason} ({step})",
        tip="`criu-train doctor` tells what this machine lacks",
        exit_code=125,
    )
