"""Touching a path as root where somebody else may own the directories: never through a symlink of theirs.

A rollback runs as root on what a training of another user did. That user may put a symlink, even in the middle of a
rollback, where a directory was. So the directory is opened component by component, and what is done then is done in
the very directory that was opened, whatever its name stands for meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS_MAX = 40


class StrayedError(OSError):
    """Something else than what was planned for is in the way. Nothing was done."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ELOOP, "something else is in its place by now", path)


@contextlib.contextmanager
def reach(path: str) -> Iterator[str]:
    """Another name for an absolute ``path``, good while the context lasts, that leads to the same directory for ever.

    The last component is never followed or looked at here. Symlinks that only root can have put there are followed
    (/var/run). StrayedError for any other; FileNotFoundError and NotADirectoryError as ever.
    """
    directory, name = os.path.split(path)
    fd = _open_directory(directory)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


@contextlib.contextmanager
def hold(path: str, flags: int = os.O_PATH) -> Iterator[int]:
    """A descriptor of what is there, not of what it points to."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def set_meta(fd: int, mode: int, uid: int, gid: int, mtime_ns: int | None) -> None:
    """Owner, permission bits (not of a symlink) and, unless None, modification time of what ``hold`` gave."""
    itself, info = f"/proc/self/fd/{fd}", os.fstat(fd)
    os.chown(itself, uid, gid)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(itself, mode)  # noqa: PTH101
    if mtime_ns is not None:
        os.utime(itself, ns=(info.st_atime_ns, mtime_ns))


def is_ours_alone(info: os.stat_result) -> bool:
    """Whether what was just made is what we made, not something put in its place."""
    return info.st_uid == os.geteuid() and (stat.S_ISDIR(info.st_mode) or info.st_nlink == 1)


def is_roots_link(path: str) -> bool:
    """Whether it is a symlink that ``reach`` follows. OSError when it can't be reached."""
    directory, name = os.path.split(path)
    fd = _open_directory(directory)
    try:
        return _is_link(name, fd) and _only_root_can_change(name, fd)
    finally:
        os.close(fd)


def _open_directory(path: str) -> int:
    todo = path.split("/")[::-1]
    fd, links = os.open("/", _DIRECTORY), 0
    try:
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            try:
                below = os.open(name, _DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP) or not _is_link(name, fd):
                    raise
                links += 1
                if links > _LINKS_MAX or not _only_root_can_change(name, fd):
                    raise StrayedError(path) from error
                target = os.readlink(name, dir_fd=fd)
                todo += target.split("/")[::-1]
                if not target.startswith("/"):
                    continue
                below = os.open("/", _DIRECTORY)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_link(name: str, directory: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _only_root_can_change(name: str, directory: int) -> bool:
    """The link is root's, and nobody else can take it away or move it."""
    owners = (0, os.geteuid())
    info = os.fstat(directory)
    shared = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not info.st_mode & stat.S_ISVTX
    link = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return link.st_uid in owners and info.st_uid in owners and not shared
