"""The supervisor's end of the hooks: the control that it writes, and the pages that processes of the training write.

What the training writes is not to be trusted: pages are read, never mapped, and nothing is written where it could
have put a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import mmap
import os
import re
import stat
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from criu_train.errors import EnvironmentUnfitError
from criu_train.hooks import layout
from criu_train.hooks.layout import Phase
from criu_train.progress.line import Told
from criu_train.store.guard import check_ours

# The directory can be walked through, since a training of another user has to; what lies in it is named by chance.
_BASE = "criu-train-hooks"
_MOST_MEMBERS = 4096
_PID = re.compile(r"[1-9][0-9]{0,9}")
_WORDS = struct.Struct("=5Q")


@dataclass(frozen=True)
class MemberState:
    """What a page tells. ``reports``: how many there were; ``waiting``: the generation plus one, in ``checkpoint``.

    ``parked``, ``ready``: rounds. ``digest``: hexadecimal, made in the generation ``digested`` minus one.
    """

    reports: int = 0
    step: int | None = None
    told: Told = field(default_factory=Told)
    waiting: int = 0
    parked: int = 0
    ready: int = 0
    digested: int = 0
    digest: str = ""

    @property
    def position(self) -> int:
        """The step; where none is ever told, how many reports there were."""
        return self.reports if self.step is None else self.step

    @classmethod
    def read(cls, page: bytes) -> MemberState:
        """Whatever the page holds; what makes no sense is not told."""
        magic, *words = _WORDS.unpack_from(page)
        if magic != layout.MAGIC:
            return cls()
        waiting, parked, ready, digested = words
        reports, step, told = 0, None, Told()
        if (report := layout.read_report(page)) is not None:
            reports, number, epoch, values = report
            step = None if number == layout.UNKNOWN_STEP else number
            metrics = {name: value for name, value in zip(_names(page), values, strict=False) if math.isfinite(value)}
            told = Told(step, epoch if math.isfinite(epoch) else None, metrics)
        digest = layout.text_at(page, layout.DIGEST, layout.DIGEST_BYTES + 1)[: layout.DIGEST_BYTES]
        return cls(reports, step, told, waiting, parked, ready, digested, digest)


def _names(page: bytes) -> list[str]:
    try:
        names = json.loads(layout.text_at(page, layout.NAMES, layout.NAMES_BYTES))
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def usual_directory(store_id: str) -> Path:
    """Where the hooks of a store's trainings meet."""
    base = Path("/run") if os.access("/run", os.W_OK) else Path(tempfile.gettempdir())
    return base / _BASE / store_id


def ours_in(directory: Path) -> Path:
    """What of it is no part of the training's workspace."""
    return (directory / layout.CONTROL).parent


def same_place(recorded: str, usual: Path) -> Path:
    """Where a training from elsewhere looks for us, if that is a place for hooks at all; else the usual one."""
    path = Path(recorded)
    return path if path.parent == usual.parent and path.name.isalnum() else usual


class HookFiles:
    """Both, for one life of a training.

    ``after_round``: as far as the training had come. ``owner``: the training's (uid, gid). ``adopted``: it runs, and is
    told nothing but that the round under way is over. Raises EnvironmentUnfitError where the directory can't be had, or
    another training uses it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        generation: int,
        after_round: int = 0,
        restored_from: str = "",
        owner: tuple[int, int],
        adopted: bool = False,
    ) -> None:
        self.directory = directory
        try:
            self._members = _make_directories(directory, owner)
            self._control = _map_control(directory / layout.CONTROL)
        except OSError as error:
            raise EnvironmentUnfitError(
                f"criu_train.hooks can't be used: {directory}: {error.strerror}",
                tip="see who has made it; without hooks snapshots work as well, wherever in a step",
            ) from error
        self._words = memoryview(self._control).cast("Q")
        known = self._words[0] == layout.MAGIC
        self.round = max(after_round, self._words[layout.ROUND] if known else 0)
        if adopted and known:
            self.change(Phase.AGAIN)
        else:
            self._write_anew(generation, restored_from)
        self.generation = self._words[layout.GENERATION]

    def _write_anew(self, generation: int, restored_from: str) -> None:
        self._control[:] = bytes(layout.CONTROL_BYTES)
        text = layout.text_bytes(restored_from, layout.ID_BYTES)
        self._control[layout.RESTORED_FROM : layout.RESTORED_FROM + layout.ID_BYTES] = text
        self._words[layout.ROUND] = self.round
        self.change(Phase.AGAIN)
        self._words[0] = layout.MAGIC
        self._words[layout.GENERATION] = generation

    def beat(self) -> None:
        """Show those who are parked that somebody is there."""
        self._words[layout.HEARTBEAT] += 1

    def begin(self, target: int, snapshot: str) -> None:
        """A new round, in which everybody is to park at this step."""
        self.round += 1
        at = layout.round_at(self.round)
        self._control[at : at + layout.ROUND_BYTES] = bytes(layout.ROUND_BYTES)
        self._control[at + layout.SNAPSHOT : at + layout.SNAPSHOT + layout.ID_BYTES] = layout.text_bytes(
            snapshot, layout.ID_BYTES
        )
        self._words[layout.TARGET] = target
        self.change(Phase.GATHERING)
        self.beat()
        self._words[layout.ROUND] = self.round

    def change(self, phase: Phase, *, of: int | None = None, problem: str = "") -> None:
        """The round ``of``, or the current one, is now there."""
        number = self.round if of is None else of
        at = layout.round_at(number)
        if of is not None and self._words[at // layout.WORD] != of:
            return  # so long ago that nobody is told of it any more
        text = layout.text_bytes(problem, layout.PROBLEM_BYTES)
        self._control[at + layout.PROBLEM : at + layout.PROBLEM + layout.PROBLEM_BYTES] = text
        self._words[at // layout.WORD] = number
        self._words[at // layout.WORD + 1] = phase

    def members(self) -> dict[int, MemberState]:
        """By PID in the cell, of the living and the dead."""
        found = {}
        for pid in self._pids():
            if (state := self.member(pid)) is not None:
                found[pid] = state
        return found

    def member(self, pid: int) -> MemberState | None:
        """None where it has no page, or one that is no page."""
        try:
            fd = os.open(str(pid), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._members)
        except OSError:
            return None
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_size != layout.PAGE_BYTES:
                return None
            page = os.pread(fd, layout.PAGE_BYTES, 0)
            return MemberState.read(page) if len(page) == layout.PAGE_BYTES else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def clear(self) -> None:
        """A new run begins: no page is of a living process."""
        for pid in self._pids():
            self.forget(pid)

    def forget(self, pid: int) -> None:
        """The process is gone for good."""
        with contextlib.suppress(OSError):
            os.unlink(str(pid), dir_fd=self._members)

    def close(self, *, remove: bool = False) -> None:
        """Let go of both; those who are parked go on by themselves after a while.

        ``remove``: nobody is there any more. A restore puts back what the training had there.
        """
        if self._members >= 0:
            if remove:
                self._remove()
            self._words.release()
            self._control.close()
            os.close(self._members)
            self._members = -1

    def _remove(self) -> None:
        self.clear()
        with contextlib.suppress(OSError):
            (self.directory / layout.CONTROL).unlink()
            for path in (ours_in(self.directory), self.directory / layout.MEMBERS, self.directory):
                path.rmdir()

    def _pids(self) -> Iterator[int]:
        with contextlib.suppress(OSError):
            names = os.listdir(self._members)  # noqa: PTH208 - by descriptor, which no link can lead astray
            yield from [int(name) for name in names if _PID.fullmatch(name)][:_MOST_MEMBERS]


def _make_directories(directory: Path, owner: tuple[int, int]) -> int:
    ours, members = ours_in(directory), directory / layout.MEMBERS
    for path in (directory.parent, directory, ours):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o711)
            path.chmod(0o711)  # whatever the umask
    for path in (directory.parent, directory, ours):
        check_ours(path, "the directory for hooks", "see who made it and take it away")
    with contextlib.suppress(FileExistsError):
        members.mkdir(mode=0o700)
        os.chown(members, *owner)
    return os.open(members, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _map_control(path: Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a copy of the store on this machine has the same directory
        os.fchmod(fd, 0o644)
        os.ftruncate(fd, layout.CONTROL_BYTES)
        os.posix_fallocate(fd, 0, layout.CONTROL_BYTES)
        return mmap.mmap(fd, layout.CONTROL_BYTES)
    finally:
        os.close(fd)
