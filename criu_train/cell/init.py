"""Init, PID 1 of the cell: launches the training, reaps, runs CRIU under a time limit, watches files, reports.

It must outlive the supervisor and stay small, so: the standard library only, one selector loop, no threads. When the
supervisor goes away, init keeps the store's lock and the training; a CRIU that asks for the cut is then told "no",
so that it fails by itself and the tree goes on. The next supervisor comes through the door (see ``channel``).

Init's end is the training's end. So whatever goes wrong once it serves (no memory, no descriptors, no disk) is written
to stderr, answered if it was asked for, and survived.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from criu_train.cell.channel import Channel
from criu_train.cell.criu_child import CriuChild
from criu_train.cell.guard import Guard, describe
from criu_train.cell.helper_child import HelperChild
from criu_train.cell.hold import Held
from criu_train.cell.launch import LaunchFailure, last_pid, prefer_this_process, set_next_pid
from criu_train.cell.root_task import RootTask
from criu_train.cell.terminal import Terminal
from criu_train.cell.watch import Watch
from criu_train.cell.wire import Wire

_HEARTBEAT_S = 0.25


class Init:
    """The loop. ``settings``: see ``records.CellSpec``."""

    def __init__(self, wire: Wire, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._selector = selectors.DefaultSelector()
        self._channel = Channel(
            self._selector,
            wire,
            door=socket.socket(fileno=settings["door_fd"]),
            lock_fd=settings["lock_fd"],
            on_message=self._on_message,
            on_loss=self._supervisor_gone,
        )
        self._root = RootTask(settings["cell_file"], settings["facts"])
        self._criu: CriuChild | None = None
        self._helper = HelperChild(self._channel, self._root.nice, give_up=self._root.kill)
        self._held = Held()
        self._guard = Guard()
        self._terminal: Terminal | None = None
        self._following = False
        self._beat_at = 0.0
        self._stop_at: float | None = None
        self._done = False
        self._watch = Watch(
            settings["journal"], settings["roots"], exclude=settings["exclude"], include=settings["include"]
        )

    def begin(self) -> None:
        """Get ready, which may take long where there is much to watch. Raises what makes this cell unfit."""
        prefer_this_process()
        wakeup, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._selector.register(wakeup, selectors.EVENT_READ, lambda: self._reap(wakeup))
        self._channel.tell("hello")
        self._watch.arm()
        self._follow_files(True)
        self._channel.tell("watching", available=self._watch.available, reason=self._watch.reason)
        self._channel.open_door(self._on_knock)

    def serve(self) -> None:
        """Serve until the training has ended and the supervisor has taken note, or is gone."""
        while not self._done:
            for key, _ in self._selector.select(self._next_wait()):
                self._guard.attempt(key.data)
            if time.monotonic() >= self._beat_at:
                self._beat_at = time.monotonic() + _HEARTBEAT_S
                self._guard.attempt(self._watch.heartbeat)
            if self._criu is not None:
                self._guard.attempt(self._criu.check)
            self._guard.attempt(self._helper.check)
            self._guard.attempt(self._held.check)
            if self._stop_at is not None and time.monotonic() >= self._stop_at:
                self._done = True

    def _follow_files(self, follow: bool) -> None:
        """Not while CRIU is at work: it writes many files, and the frozen tree waits for us. Nothing gets lost."""
        if follow == self._following or not self._watch.available:
            return
        if follow:
            self._selector.register(self._watch, selectors.EVENT_READ, self._watch.handle)
        else:
            self._selector.unregister(self._watch)
        self._following = follow

    def _next_wait(self) -> float:
        now = time.monotonic()
        wait = min(self._beat_at, self._helper.deadline) - now
        if self._criu is not None:
            wait = min(wait, self._criu.deadline - now)
        return max(0.0, wait)

    # --- requests -----------------------------------------------------------------------------------------------

    def _on_message(self) -> None:
        message = self._channel.receive()
        if message is None:
            return
        handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "launch": self._launch,
            "criu": self._run_criu,
            "helper": self._helper.run,
            "adopt": self._adopt,
            "answer": self._answer,
            "release": lambda _: self._held.release(),
            "sync": lambda _: self._sync(),
            "resize": self._resize,
            "bye": self._finish,
        }
        kind = message["kind"]
        problem = self._guard.attempt(handlers[kind], message)
        if problem is None:
            return
        if kind == "launch":
            self._channel.tell("launch_failed", errno=getattr(problem, "errno", None) or errno.EINVAL, step="start")
        elif kind == "helper":
            self._channel.tell("helper_ended", code=126)
        elif kind == "criu":
            self._channel.tell("criu_ended", code=126, timed_out=False, was_stopped=False, problem=describe(problem))

    def _finish(self, _: dict[str, Any]) -> None:
        self._done = True

    def _launch(self, message: dict[str, Any]) -> None:
        ids = message["ids"]
        try:
            self._get_terminal(message["terminal"], (ids[0], ids[1]) if ids else None)
        except OSError as error:
            self._channel.tell("launch_failed", errno=error.errno, step="terminal")
            return
        result = self._root.launch(message, self._terminal.slave if self._terminal else -1)
        if isinstance(result, LaunchFailure):
            self._channel.tell("launch_failed", errno=result.errno, step=result.step)
        else:
            self._channel.tell("launched", pid=result, terminal=self._terminal.key if self._terminal else None)

    def _get_terminal(self, wanted: dict[str, Any] | None, owner: tuple[int, int] | None = None) -> None:
        if wanted is not None and self._terminal is None:
            self._terminal = Terminal(**wanted, owner=owner)
            self._selector.register(self._terminal, selectors.EVENT_READ, self._terminal.pump)

    def _resize(self, message: dict[str, Any]) -> None:
        if self._terminal is not None:
            self._terminal.resize(message["rows"], message["columns"])

    def _adopt(self, message: dict[str, Any]) -> None:
        status = self._root.adopt(message["pid"])
        self._channel.tell("adopted", pid=message["pid"])
        if status is not None:
            self._training_ended(status)

    def _run_criu(self, message: dict[str, Any]) -> None:
        """Everything that can fail comes before the fork, which comes last of all."""
        criu = CriuChild(
            message["limit_s"], message["hook"], hold=lambda pid: self._guard.attempt(self._held.hold, pid)
        )
        try:
            if criu.ask_fd >= 0:
                self._selector.register(criu.ask_fd, selectors.EVENT_READ, self._on_question)
            self._held.note_stopped()
            if message["next_pid"] is not None:
                set_next_pid(message["next_pid"])
            self._follow_files(False)
            self._get_terminal(message["terminal"])
            keep = self._terminal.slave if self._terminal and message["terminal"] else -1
            criu.start(message["argv"], self._root.nice, message["stderr"], keep)
        except BaseException:
            self._let_go_of(criu)
            raise
        self._criu = criu
        self._watch.ignore(criu.pid)
        self._channel.tell("criu_started", pid=criu.pid, terminal=self._terminal.key if self._terminal else None)

    def _let_go_of(self, criu: CriuChild) -> None:
        if criu.ask_fd >= 0:
            with contextlib.suppress(KeyError):
                self._selector.unregister(criu.ask_fd)
        criu.close()
        self._guard.attempt(self._follow_files, True)

    def _on_question(self) -> None:
        """The action script asks for the cut: the tree stands still."""
        if self._criu is None:  # its end was taken in since
            return
        self._criu.take_question()
        if not self._channel.connected or self._guard.attempt(self._tell_cut) is not None:
            self._criu.answer(False)

    def _tell_cut(self) -> None:
        if self._terminal is not None:
            self._terminal.drain()
        self._channel.tell("cut", last_pid=last_pid(), journal_offset=self._watch.sync())

    def _answer(self, message: dict[str, Any]) -> None:
        if self._criu is not None:
            self._criu.answer(bool(message["go"]))

    def _sync(self) -> None:
        self._channel.tell("synced", journal_offset=self._watch.sync())

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
            self._guard.attempt(self._child_changed, pid, status)

    def _child_changed(self, pid: int, status: int) -> None:
        if self._criu is not None and pid == self._criu.pid:
            self._criu_changed(self._criu, status)
        elif pid == self._helper.pid:
            self._helper.changed(status)
        elif not (os.WIFSTOPPED(status) or os.WIFCONTINUED(status)) and self._root.is_root(pid, status):
            self._training_ended(status)

    def _criu_changed(self, criu: CriuChild, status: int) -> None:
        if (ended := criu.changed(status)) is None:
            return
        self._criu = None
        self._guard.attempt(self._watch.heed, criu.pid)
        self._let_go_of(criu)
        self._channel.tell("criu_ended", **ended, problem="")
        if not ended["broke_off"] or not self._channel.connected:
            self._held.release()
        if not self._channel.connected:
            self._helper.undo_alone()

    def _training_ended(self, status: int) -> None:
        self._guard.attempt(self._watch.sync)
        if self._terminal is not None:
            self._guard.attempt(self._terminal.drain)
        ended = self._root.ended(status)
        self._channel.tell("ended", **ended)
        self._root.write_down(ended)
        if not self._channel.connected:
            self._done = True

    # --- supervisors --------------------------------------------------------------------------------------------

    def _supervisor_gone(self) -> None:
        self._held.release()
        if self._root.pid is None:
            self._done = True
        elif (stop_after_s := self._settings["stop_after_s"]) is not None:
            self._stop_at = time.monotonic() + stop_after_s
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._root.pid, signal.SIGTERM)
        if self._criu is not None:
            self._criu.answer(False)
        else:
            self._helper.undo_alone()

    def _on_knock(self) -> None:
        at_work = self._criu is not None or self._helper.busy
        ready = self._root.pid is not None and not at_work and self._stop_at is None
        if self._channel.admit(ready=ready):
            self._channel.tell(
                "here",
                root=self._root.pid,
                available=self._watch.available,
                reason=self._watch.reason,
                terminal=self._terminal.key if self._terminal else None,
                journal=self._settings["journal"],
                facts=self._settings["facts"],
            )


def main(control_fd: int) -> None:
    """Entry point: the first message on the control channel is ``settings``."""
    wire = Wire(socket.socket(fileno=control_fd))
    settings = wire.receive()
    if settings is None:
        return
    try:
        for fd in (settings["lock_fd"], settings["door_fd"], control_fd):
            os.set_inheritable(fd, False)
        init = Init(wire, settings)
        init.begin()
    except Exception as error:
        with contextlib.suppress(OSError):
            wire.send("failed", text=describe(error))
        raise
    init.serve()
