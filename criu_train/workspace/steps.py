"""The steps of a rollback. Each is written down before the first is done, can be done, and can be undone.

Undoing needs nothing but the record, and undoing a step that was not done, or not to its end, does no harm: what was
there before is under its kept name, or nothing was.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from criu_train.workspace import stash
from criu_train.workspace.blobs import write_parts
from criu_train.workspace.listing import Entry

Verb = Literal["move", "put", "replace", "cut", "mkdir", "meta"]


@dataclass(frozen=True, slots=True)
class Step:
    """``kept``: name below the rollback's files/. Modes as permission bits, sizes in bytes, times in nanoseconds.

    move: take ``path`` away. put: make what is missing. replace: keep what is there, then put. cut: keep the bytes
    behind ``size``, then cut. mkdir: make a directory. meta: set mode, owner and modification time.
    ``old_*``: how it was before, for undoing. ``link_to``: put as another name of that file.
    """

    verb: Verb
    path: str
    kept: str = ""
    entry: Entry | None = None
    link_to: str | None = None
    size: int = 0
    ino: int = 0
    old_mode: int = 0
    old_uid: int = 0
    old_gid: int = 0
    old_mtime_ns: int = 0

    def to_json(self) -> dict[str, Any]:
        """What undoing needs; how to do it is in the listing."""
        names = ("verb", "path", "kept", "size", "ino", "old_mode", "old_uid", "old_gid", "old_mtime_ns")
        return {name: value for name in names if (value := getattr(self, name))}

    def do(self, files: Path, blobs: Path) -> None:
        """``files``: where things are kept. OSError when it can't be done."""
        kept = f"{files}/{self.kept}"
        match self.verb:
            case "move":
                stash.move(self.path, kept)
            case "put":
                self._create(blobs)
            case "replace":
                if os.path.isdir(self.path) and not os.path.islink(self.path):  # noqa: PTH112, PTH114
                    stash.move(self.path, kept)
                else:
                    stash.keep(self.path, kept)
                self._create(blobs)
            case "cut":
                self._cut(kept)
            case "mkdir":
                assert self.entry is not None
                os.mkdir(self.path, 0o700)  # noqa: PTH102
                self._set_owner_and_mode(self.path, self.entry)
            case "meta":
                self._set_meta()

    def undo(self, files: Path) -> None:
        """OSError when it can't be undone; then it can be tried again."""
        kept = f"{files}/{self.kept}"
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            match self.verb:
                case "move":
                    stash.give_back(kept, self.path)
                case "put":
                    stash.remove(self._beside())
                    os.unlink(self.path)  # noqa: PTH108
                case "replace":
                    stash.remove(self._beside())
                    stash.give_back(kept, self.path)
                case "cut":
                    self._uncut(kept)
                case "mkdir":
                    with contextlib.suppress(OSError):  # somebody put something there: it stays
                        os.rmdir(self.path)  # noqa: PTH106
                case "meta":
                    os.chown(self.path, self.old_uid, self.old_gid, follow_symlinks=False)
                    if not os.path.islink(self.path):  # noqa: PTH114
                        os.chmod(self.path, self.old_mode)  # noqa: PTH101
                    self._set_mtime(self.path, self.old_mtime_ns)

    def _create(self, blobs: Path) -> None:
        entry, beside = self.entry, self._beside()
        assert entry is not None
        stash.remove(beside)
        if self.link_to is not None:
            os.link(self.link_to, beside)
            os.rename(beside, self.path)  # noqa: PTH104
            return
        if entry.kind == "symlink":
            os.symlink(str(entry.target), beside)  # noqa: PTH211
        elif entry.kind == "fifo":
            os.mkfifo(beside)
        else:
            assert entry.parts is not None
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                write_parts(fd, blobs, entry.parts)
            finally:
                os.close(fd)
        self._set_owner_and_mode(beside, entry)
        self._set_mtime(beside, entry.mtime_ns)
        os.rename(beside, self.path)  # noqa: PTH104

    def _cut(self, kept: str) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            stash.keep_tail(fd, self.size, kept)
            os.ftruncate(fd, self.size)
        finally:
            os.close(fd)
        self._set_meta()

    def _uncut(self, kept: str) -> None:
        with open(kept, "rb") as tail:  # noqa: PTH123
            fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_ino != self.ino:
                    return  # another file by now: the tail stays where it is kept
                os.ftruncate(fd, self.size)
                os.lseek(fd, self.size, os.SEEK_SET)
                with os.fdopen(os.dup(fd), "wb") as file:
                    while data := tail.read(1 << 20):
                        file.write(data)
            finally:
                os.close(fd)
        os.chown(self.path, self.old_uid, self.old_gid)
        os.chmod(self.path, self.old_mode)  # noqa: PTH101
        self._set_mtime(self.path, self.old_mtime_ns)
        os.unlink(kept)  # noqa: PTH108

    def _set_meta(self) -> None:
        assert self.entry is not None
        self._set_owner_and_mode(self.path, self.entry)
        if self.entry.kind != "dir":
            self._set_mtime(self.path, self.entry.mtime_ns)

    @staticmethod
    def _set_owner_and_mode(path: str, entry: Entry) -> None:
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if entry.kind != "symlink":
            os.chmod(path, entry.mode)  # noqa: PTH101

    @staticmethod
    def _set_mtime(path: str, mtime_ns: int) -> None:
        atime_ns = os.lstat(path).st_atime_ns
        os.utime(path, ns=(atime_ns, mtime_ns), follow_symlinks=False)

    def _beside(self) -> str:
        """The name under which a file is made before it takes its place; the same at every try."""
        directory, name = os.path.split(self.path)
        return f"{directory}/.{name[:200]}.criu-train"
