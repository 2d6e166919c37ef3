"""One job, one training: the lock that supervisor and init hold."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from criu_train.errors import StoreBusyError, StoreError
from criu_train.store.durable import open_private
from criu_train.store.layout import StoreLayout


class StoreLock:
    """Held from ``acquire`` until every process that has the descriptor closed it or died.

    The descriptor is closed on exec: hand it to init on purpose, and never to the training.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def acquire(cls, layout: StoreLayout) -> StoreLock:
        """Take the lock at once, or raise StoreBusyError that names who holds it."""
        try:
            fd = open_private(layout.lock, os.O_RDWR)
        except OSError as error:
            raise StoreError(
                f"{layout.lock} can't be opened: {error.strerror}", tip="see what it is: `ls -l`, and check the disk"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise _busy(layout) from None
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def release(self) -> None:
        """Let go of our share; the lock stays held while init has the descriptor. May be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _busy(layout: StoreLayout) -> StoreBusyError:
    try:
        told = json.loads(layout.supervisor.read_bytes())
    except (OSError, ValueError):
        told = {}
    supervisor, init = (
        pid
        if isinstance(pid := told.get(name) if isinstance(told, dict) else None, int) and _has_open(pid, layout.lock)
        else None
        for name in ("supervisor_pid", "init_pid")
    )
    if supervisor is not None:
        return StoreBusyError(
            f"the store is in use by the supervisor with PID {supervisor}",
            tip="see `criu-train status`; for another job name another store with --store",
        )
    if init is not None:
        return StoreBusyError(
            f"the training still runs in its cell (init_pid {init}), though its supervisor is gone",
            tip=f"`criu-train attach` takes it over; or `kill -KILL {init}` ends it, to go on from the newest snapshot",
        )
    return StoreBusyError(
        f"the store {layout.root} is in use by another process",
        tip=f"try again in a moment; `fuser -v {layout.lock}` tells who it is",
    )


def _has_open(pid: int, lock: Path) -> bool:
    """Whether a process has the lock file open: a PID alone may have been given to somebody else since."""
    try:
        wanted, entries = lock.stat(), list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    return any(_is_same(entry, wanted) for entry in entries)


def _is_same(entry: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(entry.stat(), wanted)
    except OSError:  # closed since it was listed, as a starting program does with each of its libraries
        return False
