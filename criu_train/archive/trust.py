"""Whether a directory from outside of a store, with everything in it, is ours alone to write to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from criu_train.archive.exported import damaged
from criu_train.errors import StoreError
from criu_train.store.guard import distrust


def check_trust(directory: Path) -> None:
    """Raise StoreError where others own or may write to anything there, and for links and special files: an export
    has none, and no link is followed."""
    try:
        _check(directory, directory.stat(), directory)
        for path in _below(directory):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                raise damaged(f"{path.relative_to(directory)} is a symbolic link")
            if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                raise damaged(f"{path.relative_to(directory)} is neither a file nor a directory")
            _check(path, status, directory)
    except OSError as error:
        raise StoreError(
            f"{error.filename or directory} can't be read: {error.strerror}", tip="name an exported directory"
        ) from error


def _below(directory: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, directories, files in os.walk(directory, onerror=fail):
        for name in (*directories, *files):
            yield Path(parent, name)


def _check(path: Path, status: os.stat_result, top: Path) -> None:
    if reason := distrust(status):
        raise StoreError(
            f"{path} {reason}", tip=f"if you trust what is in it: chown -R and chmod -R go-w {top}, then again"
        )
