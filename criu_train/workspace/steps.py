"""The steps of a rollback. Each is written down before the first is done, can be done, and can be undone.

Undoing needs nothing but the record, and undoing a step that was not done, or not to its end, does no harm: what was
there before is under its kept name, or nothing was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from criu_train.workspace import stash
from criu_train.workspace.blobs import BlobReader, write_parts
from criu_train.workspace.listing import Entry
from criu_train.workspace.reach import StrayedError, hold, is_ours_alone, reach, set_meta

Verb = Literal["move", "put", "replace", "rewrite", "cut", "mkdir", "meta"]


@dataclass(frozen=True, slots=True)
class Step:
    """``kept``: name below the rollback's files/. Modes as permission bits, sizes in bytes, times in nanoseconds.

    move: take ``path`` away. put: make what is missing. replace: keep what is there, then put. cut: keep the bytes
    behind ``size``, then cut. rewrite: the same with all bytes (``size`` is 0), then write those of the cut, so that
    the file stays the one that it was. mkdir: make a directory. meta: set mode, owner and modification time.
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

    @property
    def keeps(self) -> bool:
        """Whether ``keep`` has something to do before ``do``."""
        return self.verb in ("replace", "rewrite", "cut")

    def keep(self, files: Path) -> None:
        """Have what ``do`` will destroy under the kept name; it is not durable yet. ``files``: where things are kept.

        StrayedError where what is there is not what was planned for; that goes for ``do`` and ``undo`` too.
        """
        kept = f"{files}/{self.kept}"
        with reach(self.path) as path:
            if self.verb in ("rewrite", "cut"):
                with self._same_file(path, os.O_RDONLY) as fd:
                    stash.keep_tail(fd, self.size, kept)
            elif not _is_directory(path):
                stash.keep(path, kept)

    def do(self, files: Path, blobs: BlobReader) -> None:
        """After ``keep``. OSError when it can't be done."""
        with reach(self.path) as path:
            match self.verb:
                case "move":
                    stash.move(path, f"{files}/{self.kept}")
                case "put":
                    self._create(path, blobs)
                case "replace":
                    if _is_directory(path):
                        stash.move(path, f"{files}/{self.kept}")
                    self._create(path, blobs)
                case "rewrite" | "cut":
                    with self._same_file(path, os.O_RDWR) as fd:
                        os.ftruncate(fd, self.size)
                        if self.verb == "rewrite":
                            assert self.entry is not None and self.entry.parts is not None
                            write_parts(fd, blobs, self.entry.parts)
                        self._set_meta(fd)
                case "mkdir":
                    os.mkdir(path, 0o700)  # noqa: PTH102
                    self._dress(path, with_time=False)
                case "meta":
                    with self._same_file(path, os.O_PATH) as fd:
                        self._set_meta(fd)

    def undo(self, files: Path) -> None:
        """OSError when it can't be undone; then it can be tried again."""
        kept = f"{files}/{self.kept}"
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), reach(self.path) as path:
            match self.verb:
                case "move":
                    stash.give_back(kept, path)
                case "put":
                    stash.remove(_beside(path))
                    os.unlink(path)  # noqa: PTH108
                case "replace":
                    stash.remove(_beside(path))
                    stash.give_back(kept, path)
                case "rewrite" | "cut":
                    self._uncut(path, kept)
                case "mkdir":
                    with contextlib.suppress(OSError):  # somebody put something there: it stays
                        os.rmdir(path)  # noqa: PTH106
                case "meta":
                    with self._same_file(path, os.O_PATH) as fd:
                        set_meta(fd, self.old_mode, self.old_uid, self.old_gid, self.old_mtime_ns)

    def sync(self) -> None:
        """Make durable what ``do`` made; what the tree has made of it since is its own."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, StrayedError), reach(self.path) as path:
            with hold(os.path.dirname(path) + "/.", os.O_RDONLY | os.O_DIRECTORY) as fd:  # noqa: PTH120
                os.fsync(fd)
            if self.verb != "move" and stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                with hold(path, os.O_RDONLY | os.O_NONBLOCK) as fd:
                    os.fsync(fd)

    def _create(self, path: str, blobs: BlobReader) -> None:
        entry, beside = self.entry, _beside(path)
        assert entry is not None
        stash.remove(beside)
        if self.link_to is not None:
            # What lies beside the blobs is in the store, where nobody else gets in.
            in_store = self.link_to.startswith(f"{blobs.directory.parent}/")
            with contextlib.nullcontext(self.link_to) if in_store else reach(self.link_to) as link_to:
                os.link(link_to, beside, follow_symlinks=False)
        elif entry.kind == "symlink":
            os.symlink(str(entry.target), beside)  # noqa: PTH211
            self._dress(beside)
        elif entry.kind == "fifo":
            os.mkfifo(beside, 0o600)
            self._dress(beside)
        else:
            assert entry.parts is not None
            with hold(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
                write_parts(fd, blobs, entry.parts)
                set_meta(fd, entry.mode, entry.uid, entry.gid, entry.mtime_ns)
        os.rename(beside, path)  # noqa: PTH104

    def _uncut(self, path: str, kept: str) -> None:
        with open(kept, "rb") as tail, self._same_file(path, os.O_RDWR) as fd:  # noqa: PTH123
            os.ftruncate(fd, self.size)
            os.lseek(fd, self.size, os.SEEK_SET)
            with os.fdopen(os.dup(fd), "wb") as file:
                while data := tail.read(1 << 20):
                    file.write(data)
            set_meta(fd, self.old_mode, self.old_uid, self.old_gid, self.old_mtime_ns)
            os.fsync(fd)
        os.unlink(kept)  # noqa: PTH108

    def _dress(self, path: str, *, with_time: bool = True) -> None:
        """Owner, mode and times for what was just made."""
        entry = self.entry
        assert entry is not None
        with hold(path) as fd:
            if not is_ours_alone(os.fstat(fd)):
                raise StrayedError(self.path)
            set_meta(fd, entry.mode, entry.uid, entry.gid, entry.mtime_ns if with_time else None)

    def _set_meta(self, fd: int) -> None:
        entry = self.entry
        assert entry is not None
        set_meta(fd, entry.mode, entry.uid, entry.gid, None if entry.kind == "dir" else entry.mtime_ns)

    @contextlib.contextmanager
    def _same_file(self, path: str, flags: int) -> Iterator[int]:
        """What is there, if it is what was there when it was planned: else its owner put something in its place."""
        try:
            with hold(path, flags) as fd:
                if os.fstat(fd).st_ino != self.ino:
                    raise StrayedError(self.path)
                yield fd
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise StrayedError(self.path) from error
            raise


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114


def _beside(path: str) -> str:
    """The name under which a file is made before it takes its place; the same at every try."""
    directory, name = os.path.split(path)
    return f"{directory}/.{name[:200]}.criu-train"
