"""A directory of one worker: sockets, and what it complains of. Killed supervisors' ones are removed by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_ARCHIVES = "a-"  # short, as paths of sockets have to be


class WorkerDirectory:
    """``path`` is ours alone until ``close``; it stays locked, so that nobody takes it for a dead one's.

    ``prefix``: what the names of its kind begin with. Raises OSError when it can't be made in ``runtime``.
    """

    def __init__(self, runtime: Path, prefix: str = _ARCHIVES) -> None:
        for left in runtime.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):
                _remove_dead(left)
        lock = None
        while lock is None:  # somebody who tidied up may have been quicker than our lock
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=runtime))
            lock = _lock(self.path)
        self._lock = lock

    def close(self) -> None:
        """Remove it."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _remove_dead(path: Path) -> None:
    if (lock := _lock(path)) is not None:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock; None when somebody else has it, or has removed the directory."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
