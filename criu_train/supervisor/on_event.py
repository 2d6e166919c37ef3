"""A command of the user's that is run for each event. It can't harm or hold up a training."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time

from criu_train.store.events import Event
from criu_train.supervisor.reporter import Reporter

_LIMIT_S = 10.0
_WAITING = 100
# At the end, for all that is left.
_END_S = 5.0


class OnEvent:
    """Runs ``command`` by the shell, the event as a line of JSON on its stdin; one at a time, in order.

    Progress is passed over: it comes every few seconds, and would keep what matters waiting. A command that takes
    longer than ``limit_s`` seconds is killed with its process group. The first failure is told, others are not.
    """

    def __init__(self, command: str, reporter: Reporter, limit_s: float = _LIMIT_S, end_s: float = _END_S) -> None:
        self._command = command
        self._reporter = reporter
        self._limit_s = limit_s
        self._end_s = end_s
        self._told = False
        self._end_by: float | None = None
        self._waiting: queue.Queue[Event | None] = queue.Queue(_WAITING)
        self._running: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._work, name="on-event", daemon=True)
        self._thread.start()

    def hear(self, event: Event) -> None:
        """Never waits."""
        if event["event"] == "progress":
            return
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._tell("it does not keep up, and is not run for some events")

    def close(self) -> None:
        """Wait a moment for those that are left; what is at work then is killed."""
        self._end_by = time.monotonic() + self._end_s
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(self._end_s)
        if (running := self._running) is not None and self._thread.is_alive():
            _kill_group(running)
            self._thread.join(1.0)

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None:
            if self._end_by is not None and time.monotonic() >= self._end_by:
                return
            if problem := self._run(json.dumps(event, default=str).encode() + b"\n"):
                self._tell(problem)

    def _run(self, line: bytes) -> str | None:
        """What went wrong, in words."""
        try:
            self._running = running = subprocess.Popen(
                ["/bin/sh", "-c", self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return f"it can't be started: {error.strerror or error}"
        try:
            running.communicate(line, timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            _kill_group(running)
            running.wait()
            return f"it took longer than {self._limit_s:g} s and was killed"
        finally:
            self._running = None
        return f"it ended with exit code {running.returncode}" if running.returncode else None

    def _tell(self, problem: str) -> None:
        if not self._told:
            self._told = True
            self._reporter.warning(
                f"--on-event {self._command!r}: {problem}",
                "try it by hand: `tail -n 1 events.jsonl | sh -c COMMAND` in the store; this is told once",
            )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
