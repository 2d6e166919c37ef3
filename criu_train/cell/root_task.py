"""The root task: started or adopted, watched for its end, and how it ended written down.

Standard library only: part of init.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Any

from criu_train.cell.launch import Launch, LaunchFailure, start_training
from criu_train.cell.memory import oom_kills


class RootTask:
    """``cell_file`` gets ``facts`` and how the training ended. Made before init changes its own priorities."""

    def __init__(self, cell_file: str, facts: dict[str, Any]) -> None:
        self._cell_file = cell_file
        self._facts = facts
        self._oom_kills = 0
        self._early_ends: dict[int, int] = {}
        self.pid: int | None = None
        self.nice = os.getpriority(os.PRIO_PROCESS, 0)
        with open("/proc/self/oom_score_adj") as file:  # noqa: PTH123 - no pathlib in the smallest PID 1
            self._oom_score_adj = int(file.read())

    def launch(self, message: dict[str, Any], terminal: int) -> int | LaunchFailure:
        """Start the training, with the slave of this terminal or -1. Raises OSError when no process can be had."""
        ids = message["ids"]
        self._oom_kills = oom_kills()
        result = start_training(
            Launch(
                argv=tuple(message["argv"]),
                output=message["output"],
                first_pid=message["first_pid"],
                umask=message["umask"],
                nice=self.nice,
                oom_score_adj=self._oom_score_adj,
                ignored=tuple(message["ignored"]),
                ids=(ids[0], ids[1], tuple(ids[2])) if ids else None,
                environment=message["environment"],
                terminal=terminal,
                drop_capabilities=message["drop_capabilities"],
            )
        )
        if not isinstance(result, LaunchFailure):
            self.pid = result
        return result

    def adopt(self, pid: int) -> int | None:
        """After a restore: CRIU has exited and left the root task to us. Returns its status if it has ended since."""
        self._oom_kills = oom_kills()
        self.pid = pid
        return self._early_ends.get(pid)

    def is_root(self, pid: int, status: int) -> bool:
        """Whether the child that has ended is the root task; a restored one may end before it is adopted."""
        if self.pid is None:
            self._early_ends[pid] = status
        return pid == self.pid

    def kill(self) -> None:
        """Its end lets the next supervisor restore it."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    def ended(self, status: int) -> dict[str, Any]:
        """How the training ended, in words of ``records.Ended``."""
        self.pid = None
        code = os.waitstatus_to_exitcode(status)
        return {"code": code, "out_of_memory": code == -signal.SIGKILL and oom_kills() > self._oom_kills}

    def write_down(self, ended: dict[str, Any]) -> None:
        """Durably, for a supervisor of later; where the disk does not let us, it will call the end unknown."""
        temporary = f"{self._cell_file}.tmp"
        with contextlib.suppress(OSError):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(fd, json.dumps({**self._facts, **ended}).encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, self._cell_file)  # noqa: PTH105
