"""Large images as plain files again."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from criu_train.archive.stored import StoredPages


def rebuild(snapshot: Path, target: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Write the large images of a snapshot into the directory ``target``, mode 0600, and fsync them.

    ``progress`` is told bytes written and bytes in all. Raises DamagedError, FileExistsError, OSError.
    """
    with closing(StoredPages.open(snapshot)) as stored:
        total, done = sum(stored.names.values()), 0
        for name in stored.names:
            fd = os.open(target / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

            def write(data: memoryview, fd: int = fd) -> None:
                nonlocal done
                while len(data):
                    count = os.write(fd, data)
                    data, done = data[count:], done + count
                progress(done, total)

            try:
                stored.stream(name, write)
                os.fsync(fd)
            finally:
                os.close(fd)
