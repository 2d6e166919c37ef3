"""The supervisor's end of the hooks: the control that it writes, and the pages that processes of the training write.

What the training writes is not to be trusted: pages are read, never mapped, and nothing is written where it could
have put a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from criu_train.errors import EnvironmentUnfitError, StoreError
from criu_train.hooks import layout
from criu_train.hooks.layout import Phase
from criu_train.store.guard import check_ours
from criu_train.supervisor.hook_pages import MemberState

_MOST_MEMBERS = 4096
_PID = re.compile(r"[1-9][0-9]{0,9}")


def ours_in(directory: Path) -> Path:
    """What of it is no part of the training's workspace."""
    return (directory / layout.CONTROL).parent


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
            self._members = _make_directories(directory)
            self._control = _map_control(directory / layout.CONTROL)
            if not adopted:
                _give_to(self._members, owner)
        except BlockingIOError as error:
            raise EnvironmentUnfitError(
                f"criu_train.hooks can't be used: another training has {directory}",
                tip="is a copy of this store at work on this machine? End that first",
            ) from error
        except (OSError, StoreError) as error:
            raise EnvironmentUnfitError(
                f"criu_train.hooks can't be used: {directory}: {getattr(error, 'strerror', None) or error}",
                tip="see who has made it, and that there is room",
            ) from error
        self._words = memoryview(self._control).cast("Q")
        known = self._words[0] == layout.MAGIC
        self.round = max(after_round, self._words[layout.ROUND] if known else 0)
        if adopted and known:
            if Phase.NONE < self._phase() < Phase.CUT:
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

    def admit(self, init_pid: int) -> None:
        """Only processes of this cell may be members from now on: others have the same numbers."""
        with contextlib.suppress(OSError):  # it has just ended, which others tell
            self._words[layout.NAMESPACE] = os.stat(f"/proc/{init_pid}/ns/pid").st_ino  # noqa: PTH116

    def beat(self) -> None:
        """Show those who are parked that somebody is there."""
        if self.is_open:
            self._words[layout.HEARTBEAT] += 1

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return self._members >= 0

    def _phase(self) -> int:
        return self._words[layout.round_at(self.round) // layout.WORD + 1]

    def begin(self, target: int, snapshot: str) -> None:
        """A new round, in which everybody is to park at this step."""
        if not self.is_open:
            return
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
        if not self.is_open:
            return
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
        if self.is_open:
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
            if not self.is_open:
                return
            names = os.listdir(self._members)  # noqa: PTH208 - by descriptor, which no link can lead astray
            yield from [int(name) for name in names if _PID.fullmatch(name)][:_MOST_MEMBERS]


def admit(files: HookFiles | None, init_pid: int) -> None:
    """See ``HookFiles.admit``; nothing where there are none."""
    if files is not None:
        files.admit(init_pid)


def close(files: HookFiles | None, *, remove: bool = False) -> None:
    """See ``HookFiles.close``; nothing where there are none."""
    if files is not None:
        files.close(remove=remove)


def _give_to(members: int, owner: tuple[int, int]) -> None:
    """Before anybody of this life is there: a run before may have been another user's."""
    info = os.fstat(members)
    if (info.st_uid, info.st_gid) != owner:
        os.fchown(members, *owner)


def _make_directories(directory: Path) -> int:
    ours, members = ours_in(directory), directory / layout.MEMBERS
    for path in (directory.parent, directory, ours):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o711)
            path.chmod(0o711)  # whatever the umask
    for path in (directory.parent, directory, ours):
        check_ours(path, "the directory for hooks", "see who made it and take it away")
    with contextlib.suppress(FileExistsError):
        members.mkdir(mode=0o700)
    return os.open(members, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def make_control(directory: Path) -> None:
    """Where nobody is supervised: what members have mapped, for CRIU to find. Raises OSError."""
    path = directory / layout.CONTROL
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o644)
        path.chmod(0o644)
        os.truncate(path, layout.CONTROL_BYTES)


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
