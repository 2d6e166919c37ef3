"""The supervisor's side of a cell: start one, launch the training in it or restore into it, run CRIU, hear its end.

PIDs are the host's unless a name says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from criu_train.cell import processes
from criu_train.cell.records import CellSpec, CriuExit, Cut, Ended, not_runnable
from criu_train.cell.wire import Wire
from criu_train.errors import EnvironmentUnfitError

# How long init may take for what costs it no work of note: starting, answering, noticing that it should end.
_INIT_ANSWERS_S = 30.0
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_INIT_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True; "
    "from criu_train.cell.init import main; main(int(sys.argv[2]))"
)


AtCut = Callable[[Cut], Awaitable[bool]]


class Cell:
    """One cell. Ends when its init ends, whatever the reason; ``ended`` then holds how the training ended."""

    def __init__(self, process: asyncio.subprocess.Process, wire: Wire, journal: Path) -> None:
        self.journal = journal
        self._process = process
        self._wire = wire
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._at_cut: AtCut | None = None
        self._cut_task: asyncio.Task[None] | None = None
        self._criu_pid_in_cell = 0
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.init_pid = 0
        self.root_pid = 0
        self.watch_problem: str | None = None
        asyncio.get_running_loop().add_reader(wire, self._on_readable)

    @classmethod
    async def start(cls, spec: CellSpec) -> Cell:
        """Make the namespaces and start init in them. Raises EnvironmentUnfitError when that is not possible."""
        wire, theirs = Wire.pair()
        with theirs, spec.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *("unshare", "--pid", "--fork", "--mount", "--mount-proc"),
                *(sys.executable, "-I", "-S", "-c", _INIT_PROGRAM, _PACKAGE_PARENT, str(theirs.fileno())),
                pass_fds=(theirs.fileno(), spec.lock_fd),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        cell = cls(process, wire, spec.journal)
        hello = cell._expect("hello")
        wire.send(
            "settings",
            keep_fds=[spec.lock_fd],
            cell_file=str(spec.cell_file),
            journal=str(spec.journal),
            roots=spec.roots,
            exclude=spec.exclude,
            include=spec.include,
            facts=dict(spec.facts),
        )
        try:
            message = await asyncio.wait_for(hello, _INIT_ANSWERS_S)
        except (TimeoutError, ConnectionError) as error:
            await cell.kill()
            raise EnvironmentUnfitError(
                "the cell (PID and mount namespaces) could not be made",
                tip="run as root, in a container with --privileged; `criu-train doctor` tells what is missing",
            ) from error
        cell.init_pid = next(iter(processes.children(process.pid)), 0)
        cell.watch_problem = None if message["watch"] else str(message["reason"])
        return cell

    async def launch(
        self,
        argv: Sequence[str],
        *,
        output: Path,
        first_pid: int,
        ids: tuple[int, int, Sequence[int]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the training. Raises CommandNotRunnableError (126, 127) when the command can't be executed."""
        launched, failed = self._expect("launched"), self._expect("launch_failed")
        self._wire.send(
            "launch",
            argv=list(argv),
            output=str(output),
            first_pid=first_pid,
            ids=[ids[0], ids[1], list(ids[2])] if ids else None,
            environment=dict(environment or {}),
        )
        await asyncio.wait((launched, failed), return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            raise not_runnable(argv[0], **failed.result())
        self.root_pid = self._host_pid(launched.result()["pid"])

    async def criu(
        self,
        argv: Sequence[str],
        *,
        limit_s: float,
        stderr: Path,
        hook: Path | None = None,
        at_cut: AtCut | None = None,
        next_pid: int | None = None,
    ) -> CriuExit:
        """Run CRIU inside the cell under a time limit.

        ``hook`` is the directory of the action script's FIFOs and ``at_cut`` what to do while the tree stands still;
        CRIU goes on as if all were well when it returns True, and fails the dump otherwise.
        """
        self._at_cut = at_cut
        ended = self._expect("criu_ended")
        self._wire.send(
            "criu",
            argv=list(argv),
            limit_s=limit_s,
            stderr=str(stderr),
            hook=str(hook) if hook else None,
            next_pid=next_pid,
        )
        message = await ended
        if self._cut_task is not None:
            await self._cut_task
            self._cut_task = None
        self._at_cut = None
        return CriuExit(message["code"], message["timed_out"], message["was_stopped"])

    async def adopt(self, pid_in_cell: int) -> None:
        """After a restore: make the restored root task the one whose end ends the training."""
        adopted = self._expect("adopted")
        self._wire.send("adopt", pid=pid_in_cell)
        await adopted
        self.root_pid = self._host_pid(pid_in_cell)

    async def sync_journal(self) -> int:
        """Have init read every event so far. Returns how far the journal reaches (bytes)."""
        synced = self._expect("synced")
        self._wire.send("sync")
        offset: int = (await asyncio.wait_for(synced, _INIT_ANSWERS_S))["journal_offset"]
        return offset

    def tree(self) -> list[int]:
        """PIDs of the training's processes, the root task first."""
        return processes.tree(self.root_pid) if self.root_pid else []

    def strays(self) -> list[int]:
        """PIDs that left the training's tree (double-forked): CRIU does not see them."""
        beside = [pid for pid in processes.children(self.init_pid) if pid != self.root_pid]
        return [pid for pid in beside if processes.pid_in_cell(pid) != self._criu_pid_in_cell]

    async def close(self) -> None:
        """Let init go once the training has ended, and everything still in the cell with it."""
        with contextlib.suppress(OSError):
            self._wire.send("bye")
        try:
            await asyncio.wait_for(self._process.wait(), _INIT_ANSWERS_S)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the cell and everything in it at once, and wait until it is gone."""
        with contextlib.suppress(psutil.Error):
            if self.init_pid:
                psutil.Process(self.init_pid).kill()
            else:
                self._process.kill()
        await self._process.wait()
        self._lost()

    # --- messages -----------------------------------------------------------------------------------------------

    def _expect(self, kind: str) -> asyncio.Future[dict[str, Any]]:
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        # A cell that is lost fails every wait; those that nobody looks at any more must not complain.
        future.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._waiting[kind] = future
        if self._wire.fileno() < 0:
            future.set_exception(ConnectionError("the cell is gone"))
        return future

    def _on_readable(self) -> None:
        while True:
            try:
                message = self._wire.receive()
            except BlockingIOError:
                return
            if message is None:
                self._lost()
                return
            self._on_message(message)

    def _on_message(self, message: dict[str, Any]) -> None:
        kind = message.pop("kind")
        if kind == "cut":
            self._cut_task = asyncio.get_running_loop().create_task(self._answer_cut(Cut(**message)))
        elif kind == "criu_started":
            self._criu_pid_in_cell = message["pid"]
        elif kind == "ended":
            if not self.ended.done():
                self.ended.set_result(Ended(**message))
        elif (waiting := self._waiting.pop(kind, None)) is not None and not waiting.done():
            waiting.set_result(message)

    async def _answer_cut(self, cut: Cut) -> None:
        go = False
        try:
            go = self._at_cut is not None and await self._at_cut(cut)
        finally:
            with contextlib.suppress(OSError):
                self._wire.send("answer", go=go)

    def _lost(self) -> None:
        if self._wire.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._wire)
            self._wire.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the cell is gone"))
        self._waiting.clear()
        if not self.ended.done():
            self.ended.set_result(Ended(code=-9, cell_lost=True))

    def _host_pid(self, pid_in_cell: int) -> int:
        candidates = processes.children(self.init_pid)
        return next((pid for pid in candidates if processes.pid_in_cell(pid) == pid_in_cell), 0)
