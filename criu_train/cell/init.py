"""Init, PID 1 of the cell: launches the training, reaps, runs CRIU under a time limit, watches files, reports.

It must outlive the supervisor and stay small, so: the standard library only, one selector loop, no threads. When the
supervisor goes away, init keeps the store's lock and the training; a CRIU that asks for the cut is then told "no",
so that it fails by itself and the tree goes on.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from criu_train.cell.criu_child import CriuChild
from criu_train.cell.launch import Launch, LaunchFailure, last_pid, set_next_pid, start_helper, start_training
from criu_train.cell.watch import Watch
from criu_train.cell.wire import Wire

_HEARTBEAT_S = 0.25


class Init:
    """The loop. ``settings``: lock_fd (kept open, nothing more), cell_file, journal, roots, exclude, include."""

    def __init__(self, wire: Wire, settings: dict[str, Any]) -> None:
        self._wire: Wire | None = wire
        self._settings = settings
        self._selector = selectors.DefaultSelector()
        self._root: int | None = None
        self._early_ends: dict[int, int] = {}
        self._criu: CriuChild | None = None
        self._oom_kills = _oom_kills()
        self._done = False
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)
        with open("/proc/self/oom_score_adj") as file:  # noqa: PTH123
            self._oom_score_adj = int(file.read())
        self._watch = Watch(
            settings["journal"], settings["roots"], exclude=settings["exclude"], include=settings["include"]
        )

    def run(self) -> None:
        """Serve until the training has ended and the supervisor has taken note, or is gone."""
        self._prefer_init()
        wakeup, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._selector.register(wakeup, selectors.EVENT_READ, lambda: self._reap(wakeup))
        assert self._wire is not None
        self._selector.register(self._wire, selectors.EVENT_READ, self._on_message)
        self._watch.arm()
        self._follow_files(True)
        self._tell("hello", watch=self._watch.available, reason=self._watch.reason)
        while not self._done:
            for key, _ in self._selector.select(self._next_wait()):
                key.data()
            self._watch.heartbeat()
            if self._criu is not None:
                self._criu.check()

    def _prefer_init(self) -> None:
        """Events must be read promptly, and init must be the last to go when memory is short."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -15)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("-900")

    def _follow_files(self, follow: bool) -> None:
        """Not while CRIU is at work: it writes many files, and the frozen tree waits for us. Nothing gets lost."""
        if not self._watch.available:
            return
        if follow:
            self._selector.register(self._watch, selectors.EVENT_READ, self._watch.handle)
        else:
            self._selector.unregister(self._watch)

    def _next_wait(self) -> float:
        if self._criu is None:
            return _HEARTBEAT_S
        return max(0.0, min(_HEARTBEAT_S, self._criu.deadline - time.monotonic()))

    def _tell(self, kind: str, **fields: Any) -> None:
        if self._wire is not None:
            try:
                self._wire.send(kind, **fields)
            except OSError:
                self._supervisor_gone()

    # --- requests -----------------------------------------------------------------------------------------------

    def _on_message(self) -> None:
        message = self._wire.receive() if self._wire is not None else None
        if message is None:
            self._supervisor_gone()
            return
        handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "launch": self._launch,
            "criu": self._run_criu,
            "adopt": self._adopt,
            "answer": self._answer,
            "sync": lambda _: self._sync(),
            "bye": lambda _: self._finish(),
        }
        handlers[message["kind"]](message)

    def _launch(self, message: dict[str, Any]) -> None:
        ids = message["ids"]
        result = start_training(
            Launch(
                argv=tuple(message["argv"]),
                output=message["output"],
                first_pid=message["first_pid"],
                nice=self._nice,
                oom_score_adj=self._oom_score_adj,
                ids=(ids[0], ids[1], tuple(ids[2])) if ids else None,
                environment=message["environment"],
            )
        )
        if isinstance(result, LaunchFailure):
            self._tell("launch_failed", errno=result.errno, step=result.step)
        else:
            self._root = result
            self._tell("launched", pid=result)

    def _adopt(self, message: dict[str, Any]) -> None:
        """After a restore: CRIU has exited and left the root task to us."""
        pid = message["pid"]
        self._root = pid
        self._tell("adopted", pid=pid)
        if pid in self._early_ends:
            self._training_ended(self._early_ends[pid])

    def _run_criu(self, message: dict[str, Any]) -> None:
        if message["next_pid"] is not None:
            set_next_pid(message["next_pid"])
        # A dump killed for want of memory can take the tree along. A restore must run at 0: a saved 0 is not set again.
        oom_score_adj = -900 if message["hook"] is not None else 0
        pid = start_helper(message["argv"], self._nice, oom_score_adj, message["stderr"])
        self._watch.ignore(pid)
        self._follow_files(False)
        self._criu = CriuChild(pid, message["limit_s"], message["hook"])
        if self._criu.ask_fd >= 0:
            self._selector.register(self._criu.ask_fd, selectors.EVENT_READ, self._on_question)
        self._tell("criu_started", pid=pid)

    def _on_question(self) -> None:
        """The action script asks for the cut: the tree stands still."""
        assert self._criu is not None
        self._criu.take_question()
        if self._wire is None:
            self._criu.answer(False)
        else:
            self._tell("cut", last_pid=last_pid(), journal_offset=self._watch.sync())

    def _answer(self, message: dict[str, Any]) -> None:
        if self._criu is not None:
            self._criu.answer(bool(message["go"]))

    def _sync(self) -> None:
        self._tell("synced", journal_offset=self._watch.sync())

    # --- children ---------------------------------------------------------------------------------------------------

    def _reap(self, wakeup: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wakeup, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._criu is not None and pid == self._criu.pid:
                self._criu_changed(self._criu, status)
            elif os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
                continue
            elif pid == self._root:
                self._training_ended(status)
            elif self._root is None:
                self._early_ends[pid] = status  # a restored root task may end before it is adopted

    def _criu_changed(self, criu: CriuChild, status: int) -> None:
        ask_fd = criu.ask_fd
        if (ended := criu.changed(status)) is None:
            return
        if ask_fd >= 0:
            self._selector.unregister(ask_fd)
        self._watch.heed(criu.pid)
        self._follow_files(True)
        if criu.timed_out and self._wire is None:
            criu.signal_tree(signal.SIGCONT)
        self._criu = None
        self._tell("criu_ended", **ended)

    def _training_ended(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        ended = {"code": code, "out_of_memory": code == -signal.SIGKILL and _oom_kills() > self._oom_kills}
        self._root = None
        self._watch.sync()
        _write_durably(self._settings["cell_file"], {**self._settings["facts"], **ended})
        self._tell("ended", **ended)
        if self._wire is None:
            self._done = True

    def _supervisor_gone(self) -> None:
        if self._wire is None:
            return
        self._selector.unregister(self._wire)
        self._wire.close()
        self._wire = None
        if self._criu is not None:
            self._criu.answer(False)
        if self._root is None:
            self._done = True

    def _finish(self) -> None:
        self._done = True


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot."""
    with open("/proc/vmstat") as file:  # noqa: PTH123
        return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)


def _write_durably(path: str, content: dict[str, Any]) -> None:
    temporary = f"{path}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(fd, json.dumps(content).encode())
        os.fsync(fd)
        os.close(fd)
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EROFS, errno.ENOENT, errno.EDQUOT):
            raise


def main(control_fd: int) -> None:
    """Entry point: the first message on the control channel is ``settings``."""
    wire = Wire(socket.socket(fileno=control_fd))
    settings = wire.receive()
    if settings is None:
        return
    for fd in settings["keep_fds"]:
        os.set_inheritable(fd, False)
    os.set_inheritable(control_fd, False)
    Init(wire, settings).run()
