"""The supervisor's state as others see it: supervisor.json, rewritten atomically at every change."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from criu_train.cell import processes
from criu_train.store.shape import misfit

StateName = Literal["starting", "restoring", "running", "dumping", "stopping", "backoff", "finished", "lost"]
_PID_MAX = 1 << 22  # the kernel's PID_MAX_LIMIT
ALIVE: frozenset[str] = frozenset({"starting", "restoring", "running", "dumping", "stopping", "backoff"})


def boot_id() -> str:
    """Differs after every boot of the machine (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class State:
    """PIDs are the host's; times are ISO 8601 UTC."""

    state: StateName = "starting"
    supervisor_pid: int | None = None
    supervisor_started: float | None = None
    init_pid: int | None = None
    init_started: float | None = None
    root_pid: int | None = None
    run: str | None = None
    restored_from: str | None = None
    last_snapshot: str | None = None
    next_dump_at: str | None = None
    dumps_failed: int = 0
    restarts: int = 0
    exit_code: int | None = None
    boot_id: str | None = None
    control: str | None = None

    def supervisor_alive(self) -> bool:
        """Whether the very process that wrote this still lives."""
        return self._is_of_this_boot() and _alive(self.supervisor_pid, self.supervisor_started)

    def cell_alive(self) -> bool:
        """Whether the cell's init still lives."""
        return self._is_of_this_boot() and _alive(self.init_pid, self.init_started)

    def _is_of_this_boot(self) -> bool:
        return self.boot_id in (None, boot_id())


def _alive(pid: int | None, started: float | None) -> bool:
    if pid is None or not 0 < pid <= _PID_MAX or started is None or processes.start_time(pid) != started:
        return False
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def read_state(path: Path) -> State | None:
    """The state last written, or None when there is none that can be read."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        state = State(**content)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return None if misfit(state) else state


class StateFile:
    """Holds the state and writes it down whenever it changes."""

    def __init__(self, path: Path, state: State) -> None:
        self._path = path
        self.state = state
        self._write()

    def change(self, **fields: Any) -> None:
        """Replace the named fields."""
        changed = replace(self.state, **fields)
        if changed != self.state:
            self.state = changed
            self._write()

    def _write(self) -> None:
        # Not fsynced: after a power cut nothing in it is true any more. A full disk must not stop the training.
        temporary = self._path.with_suffix(".tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w") as file:
                json.dump(asdict(self.state), file)
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
