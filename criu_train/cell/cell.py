"""The supervisor's side of a cell: start one, launch the training in it or restore into it, run CRIU, hear its end.

PIDs are the host's unless a name says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from criu_train.cell import processes
from criu_train.cell.cut_answer import AtCut, CutAnswer
from criu_train.cell.door import knock
from criu_train.cell.init_process import InitProcess, tip_for
from criu_train.cell.link import Link, Message, first_of, one
from criu_train.cell.records import CellLostError, CellSpec, CriuExit, Ended, not_runnable
from criu_train.cell.wire import Wire
from criu_train.errors import EnvironmentUnfitError

# How long init may take for what costs it no work of note: starting, noticing that it should end.
_HELLO_S = _ENDING_S = 10.0
# And for what may have to wait behind many events of the watch.
_ANSWERS_S = 30.0

Size = os.terminal_size


class Cell:
    """One cell. Ends when its init ends, whatever the reason; ``ended`` then holds how the training ended.

    Whatever waits for an answer raises CellLostError when the cell ends.
    """

    def __init__(self, init: InitProcess, wire: Wire, journal: Path) -> None:
        self.journal = journal
        self._init = init
        self._cut = CutAnswer(lambda go: self._link.send("answer", go=go))
        self._link = Link(
            wire, {"cut": self._cut.ask, "criu_started": self._on_criu_started, "ended": self._on_ended}, self._on_loss
        )
        self._criu_pid_in_cell = 0
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.root_pid = self.root_pid_in_cell = 0
        self.watch_problem: str | None = None
        self.terminal: str | None = None  # as CRIU names it

    @classmethod
    async def start(cls, spec: CellSpec) -> Cell:
        """Make the namespaces and start init in them. Raises EnvironmentUnfitError when that is not possible.

        Takes as long as it takes to look through the directories that are to be watched.
        """
        try:
            init, wire, door_fd = await InitProcess.start(spec)
        except OSError as error:
            raise EnvironmentUnfitError(
                f"the cell could not be started: {error.strerror} ({error.filename or 'fork'})",
                tip="see that the store's disk has room; `criu-train doctor` tells what this machine lacks",
            ) from error
        cell = cls(init, wire, spec.journal)
        try:
            await cell._begin(spec.settings(door_fd))
        except CellLostError as error:
            await cell.kill()
            why = f": {said}" if (said := init.last_words()) else ""
            raise EnvironmentUnfitError(
                f"the cell (PID and mount namespaces) could not be made{why}",
                tip=tip_for(said),
            ) from error
        except BaseException:
            await cell.kill()
            raise
        return cell

    async def _begin(self, settings: Message) -> None:
        hello, watching, failed = map(self._link.expect, ("hello", "watching", "failed"))
        self._link.send("settings", **settings)
        if await first_of(hello, failed, limit_s=_HELLO_S) == 0:
            self._init.identify()
            await first_of(watching, failed)
        if failed.done():
            raise EnvironmentUnfitError(
                f"the cell could not begin: {failed.result()['text']}",
                tip="see that the store's disk has room and can be written to",
            )
        self._take_watch(watching.result())

    @classmethod
    async def rejoin(cls, init_pid: int, door: Path, log: Path, *, limit_s: float) -> tuple[Cell, int, Message] | None:
        """A cell whose supervisor is gone, the store's lock as a descriptor, and the facts of the cell's ``spec``.

        None when it lets nobody in; see ``door.knock``. Raises OSError and CellLostError when it is gone.
        """
        if (admitted := await knock(door, limit_s)) is None:
            return None
        wire, lock_fd = admitted
        cell = cls(InitProcess.found(init_pid, log), wire, Path())
        try:
            here = await one(cell._link.expect("here"), _ANSWERS_S)
        except BaseException:
            os.close(lock_fd)
            cell.forget()
            raise
        cell.journal, cell.terminal = Path(here["journal"]), here["terminal"]
        cell._take_watch(here)
        cell._take_root(here["root"])
        return cell, lock_fd, here["facts"]

    @property
    def init_pid(self) -> int:
        return self._init.pid

    async def launch(
        self,
        argv: Sequence[str],
        *,
        output: Path,
        first_pid: int,
        umask: int = 0o022,
        ignored: Sequence[int] = (),
        ids: tuple[int, int, Sequence[int]] | None = None,
        environment: Mapping[str, str] | None = None,
        size: Size | None = None,
        drop_capabilities: bool = True,
    ) -> None:
        """Start the training, with these signals ignored, and with a terminal where a ``size`` is given.

        Raises CommandNotRunnableError (126, 127).
        """
        launched, failed = self._link.expect("launched"), self._link.expect("launch_failed")
        self._link.send(
            "launch",
            argv=list(argv),
            output=str(output),
            first_pid=first_pid,
            umask=umask,
            ignored=list(ignored),
            ids=[ids[0], ids[1], list(ids[2])] if ids else None,
            environment=dict(environment or {}),
            terminal=_terminal(output, size),
            drop_capabilities=drop_capabilities,
        )
        if await first_of(launched, failed) == 1:
            raise not_runnable(argv[0], **failed.result())
        self.terminal = launched.result()["terminal"]
        self._take_root(launched.result()["pid"])

    async def criu(
        self,
        argv: Sequence[str],
        *,
        limit_s: float,
        stderr: Path,
        hook: Path | None = None,
        at_cut: AtCut | None = None,
        next_pid: int | None = None,
        terminal: tuple[Path, Size] | None = None,
    ) -> CriuExit:
        """Run CRIU inside the cell under a time limit.

        ``stderr``: the file that CRIU logs to as well; its last words there tell whether it failed in order.
        ``terminal``: where the output of a new terminal of this size goes, whose slave CRIU gets as KEPT_FD.

        ``hook`` is the directory of the action script's FIFOs and ``at_cut`` what to do while the tree stands still;
        CRIU goes on as if all were well when it returns True, and fails the dump otherwise.

        ``at_cut`` has ended when this returns or raises, unless it is stuck: five seconds after the end of CRIU (or of
        the cell) it is cancelled and left behind, and a thread that it waits for may then still be at work. A CRIU that
        could not even be started is a CriuExit with a ``problem``.
        """
        ended = self._link.expect("criu_ended")
        self._cut.begin(at_cut)
        try:
            self._link.send(
                "criu",
                argv=list(argv),
                limit_s=limit_s,
                stderr=str(stderr),
                hook=str(hook) if hook else None,
                next_pid=next_pid,
                terminal=_terminal(*terminal) if terminal else None,
            )
            message = await ended
        finally:
            await self._cut.settle()
        return CriuExit(**message)

    async def helper(self, argv: Sequence[str], *, said: Path, limit_s: float, undo: Sequence[str] | None) -> int:
        """Run a program that prepares the training for CRIU, or undoes that; its exit code, -n for signal n.

        ``said``: where its output goes. ``undo``: the command line of what undoes its work, which init runs by itself
        when there is no supervisor any more that asks for it; None for a program that undoes.
        """
        ended = self._link.expect("helper_ended")
        self._link.send(
            "helper", argv=list(argv), said=str(said), limit_s=limit_s, undo=list(undo) if undo is not None else None
        )
        return int((await ended)["code"])

    async def release(self) -> None:
        """What a CRIU that broke off has left is mended: everybody whom init holds because of it goes on.

        Without this call they go on by themselves after ten seconds.
        """
        with contextlib.suppress(CellLostError):
            self._link.send("release")

    async def adopt(self, pid_in_cell: int) -> None:
        """After a restore: make the restored root task the one whose end ends the training."""
        adopted = self._link.expect("adopted")
        self._link.send("adopt", pid=pid_in_cell)
        await one(adopted, _ANSWERS_S)
        self._take_root(pid_in_cell)

    def resize(self, size: Size) -> None:
        """Our own terminal has another size now; the training's is to have it too."""
        with contextlib.suppress(CellLostError):
            self._link.send("resize", rows=size.lines, columns=size.columns)

    async def sync_journal(self) -> int:
        """Have init read every event so far. Returns how far the journal reaches (bytes)."""
        synced = self._link.expect("synced")
        self._link.send("sync")
        return int((await one(synced, _ANSWERS_S))["journal_offset"])

    def tree(self) -> list[int]:
        """PIDs of the training's processes, the root task first."""
        return processes.tree(self.root_pid) if self.root_pid else []

    def strays(self) -> list[int]:
        """PIDs that left the training's tree (double-forked): CRIU does not see them."""
        beside = [pid for pid in processes.children(self.init_pid) if pid != self.root_pid]
        return [pid for pid in beside if processes.pid_in_cell(pid) != self._criu_pid_in_cell]

    async def close(self) -> None:
        """Let init go once the training has ended, and everything still in the cell with it. Never raises."""
        with contextlib.suppress(CellLostError):
            self._link.send("bye")
        if await self._init.gone(_ENDING_S):
            self.forget()
        else:
            await self.kill()

    async def kill(self) -> None:
        """End the cell and everything in it at once, and wait until it is gone.

        Never raises; what the kernel can't end (a task that waits for a dead disk) is not waited for.
        """
        self._init.kill()
        await self._init.gone(_ENDING_S)
        self.forget()

    def kill_now(self) -> None:
        """End the cell and everything in it without waiting; whoever waits for an answer raises CellLostError."""
        self._init.kill()

    def forget(self) -> None:
        """Let go of it; if it lives, it lives on without a supervisor."""
        self._link.lose()
        self._init.forget()

    # --- news ---------------------------------------------------------------------------------------------------

    def _on_criu_started(self, message: Message) -> None:
        self._criu_pid_in_cell = message["pid"]
        self.terminal = message["terminal"]

    def _on_ended(self, message: Message) -> None:
        if not self.ended.done():
            self.ended.set_result(Ended(**message))

    def _on_loss(self) -> None:
        if not self.ended.done():
            self.ended.set_result(Ended(code=-9, cell_lost=True))

    def _take_watch(self, told: Message) -> None:
        self.watch_problem = None if told["available"] else str(told["reason"])

    def _take_root(self, pid_in_cell: int) -> None:
        self.root_pid_in_cell, self.root_pid = pid_in_cell, self._host_pid(pid_in_cell)

    def _host_pid(self, pid_in_cell: int) -> int:
        candidates = processes.children(self.init_pid)
        return next((pid for pid in candidates if processes.pid_in_cell(pid) == pid_in_cell), 0)


def _terminal(output: Path, size: Size | None) -> dict[str, Any] | None:
    return {"output": str(output), "rows": size.lines, "columns": size.columns} if size is not None else None
