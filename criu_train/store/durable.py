"""Writes that survive a power cut.

A file is safe once its bytes were fsynced, and its name once the directory was: every function here returns only
when both are. ``Disk`` gathers the operations whose order matters, so that tests can watch, break or stop them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from criu_train import moments

# Journalling filesystems fold fsyncs that wait at the same time into one commit.
_SYNC_THREADS = 8


class Disk:
    """The operations whose order decides what a power cut leaves behind."""

    def fsync(self, path: Path) -> None:
        """Make the bytes of a file, or the names in a directory, durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or directory its new name in one step, replacing a file that has it."""
        old.rename(new)

    def reached(self, point: str) -> None:
        """A moment between two steps, see ``moments``; faults are put in here."""
        moments.reached(point)


DISK = Disk()


def write_atomic(path: Path, data: bytes, mode: int = 0o600, *, disk: Disk = DISK) -> None:
    """Replace ``path`` so that any reader, also after a power cut, finds the old bytes or the new ones, whole.

    One writer at a time for one path: the temporary name beside it is always the same, so that none pile up.
    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with os.fdopen(open_private(temporary, os.O_WRONLY | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
    disk.fsync(temporary)
    disk.rename(temporary, path)
    disk.fsync(path.parent)


def fsync_dir(path: Path, *, disk: Disk = DISK) -> None:
    """Make the names in a directory durable."""
    disk.fsync(path)


def fsync_tree(directory: Path, *, disk: Disk = DISK) -> None:
    """Make every regular file and directory below ``directory`` durable, then ``directory`` itself.

    Symbolic links are never followed. Raises OSError, the first one met.
    """
    from concurrent.futures import ThreadPoolExecutor  # only those who write wait for it

    files, directories = [], []
    for parent, _, names in os.walk(directory, onerror=_raise):
        directories.append(Path(parent))
        files += [path for name in names if (path := Path(parent, name)).is_file() and not path.is_symlink()]
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(disk.fsync, files))
    for path in reversed(directories):  # the deepest first
        disk.fsync(path)


def open_private(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file, made where there is none, with ``mode`` whatever the umask; closed on exec, no link followed.

    A device is everybody's and stays as it is.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind) and stat.S_IMODE(kind) != mode:
        os.fchmod(descriptor, mode)
    return descriptor


def make_private_dir(path: Path) -> None:
    """Create a directory with mode 0700, whatever the umask; raises FileExistsError."""
    path.mkdir(mode=0o700)
    path.chmod(0o700)


def _raise(error: OSError) -> None:
    raise error
