"""Moving things aside and back, within a filesystem by rename, across filesystems by an exact copy.

What lies under its kept name is whole: a copy is made under another name first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat

from criu_train.workspace.reach import StrayedError, hold, is_ours_alone, set_meta

_PART = ".part"


def move(path: str, kept: str) -> None:
    """``path`` is gone afterwards and all of it is under ``kept``."""
    try:
        os.rename(path, kept)  # noqa: PTH104
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_whole(path, kept)
        remove(path)


def keep(path: str, kept: str) -> None:
    """``path`` stays; what it is now can be had back from ``kept`` after another file was renamed over it."""
    try:
        os.link(path, kept, follow_symlinks=False)
    except OSError:
        _copy_whole(path, kept)


def give_back(kept: str, path: str) -> None:
    """What was moved or kept is at ``path`` again. Something else that is there now goes to ``kept``.met."""
    if not os.path.lexists(kept):
        return
    if (os.path.isdir(kept) and not os.path.islink(kept)) or (os.path.isdir(path) and not os.path.islink(path)):  # noqa: PTH112, PTH114
        with contextlib.suppress(FileNotFoundError):
            move(path, f"{kept}.met")
    try:
        os.rename(kept, path)  # noqa: PTH104
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = f"{path}.criu-train{_PART}"
        remove(beside)
        copy(kept, beside)
        os.rename(beside, path)  # noqa: PTH104
    # rename() does nothing when both names are links of the same file.
    remove(kept)


def keep_tail(fd: int, offset: int, kept: str) -> None:
    """The bytes from ``offset`` on, as a file; its bytes are durable, its name is not yet."""
    with open(f"{kept}{_PART}", "wb") as file:  # noqa: PTH123
        while data := os.pread(fd, 1 << 20, offset):
            file.write(data)
            offset += len(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{kept}{_PART}", kept)  # noqa: PTH104


def copy(source: str, target: str) -> None:
    """An exact and durable copy of anything: bytes, kind, mode, owner, times; a directory with all below it.

    Follows no symlink, even if somebody puts one in the way meanwhile.
    """
    info = os.lstat(source)
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(source), target)  # noqa: PTH115, PTH211
    elif kind == stat.S_IFDIR:
        os.mkdir(target, 0o700)  # noqa: PTH102
        flags = os.O_RDONLY | os.O_DIRECTORY
        with hold(source, flags) as old, hold(target, flags) as new:
            for name in os.listdir(old):  # noqa: PTH208
                copy(f"/proc/self/fd/{old}/{name}", f"/proc/self/fd/{new}/{name}")
            os.fsync(new)
    elif kind == stat.S_IFREG:
        _copy_bytes(source, target)
    else:
        os.mknod(target, info.st_mode, info.st_rdev)
    with hold(target) as fd:
        if not is_ours_alone(os.fstat(fd)):
            raise StrayedError(target)
        set_meta(fd, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns)


def remove(path: str) -> None:
    """Whatever it is; nothing to do when it isn't there."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        shutil.rmtree(path)


def _copy_whole(path: str, kept: str) -> None:
    remove(kept + _PART)
    copy(path, kept + _PART)
    os.rename(kept + _PART, kept)  # noqa: PTH104
    with hold(os.path.dirname(kept), os.O_RDONLY | os.O_DIRECTORY) as fd:  # noqa: PTH120
        os.fsync(fd)


def _copy_bytes(source: str, target: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with hold(source, os.O_RDONLY | os.O_NONBLOCK) as old, hold(target, flags) as new:
        with os.fdopen(os.dup(old), "rb") as reader, os.fdopen(os.dup(new), "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
        shutil.copystat(f"/proc/self/fd/{old}", f"/proc/self/fd/{new}")  # extended attributes too
        os.fsync(new)
