"""One CRIU that dumps the tree of a cell: called, and what it leaves behind cleared up."""

from __future__ import annotations

import asyncio
import contextlib
import math
from pathlib import Path

from criu_train.archive.archivist import Archivist
from criu_train.cell.connections import has_tcp_connections
from criu_train.cell.cut_answer import AtCut
from criu_train.cell.records import CriuExit
from criu_train.criu.command import dump_command
from criu_train.criu.cure import WaysOfLinks, cure
from criu_train.errors import DumpFailedError
from criu_train.store.draft import Draft
from criu_train.supervisor.devices import Devices
from criu_train.supervisor.dump_context import DumpContext, left
from criu_train.supervisor.dump_errors import BROKEN_PIPE, failure_of, read_log
from criu_train.supervisor.hook import prepare_hook

# Beside the images; gone before the snapshot is published.
_SPILL = ".spill"


class CriuAtWork:
    """Used once. ``was_killed``: it may have taken the tree along."""

    def __init__(
        self, context: DumpContext, draft: Draft, archivist: Archivist, devices: Devices, *, leave_running: bool
    ) -> None:
        self._context = context
        self._draft = draft
        self._archivist = archivist
        self._devices = devices
        self._leave_running = leave_running
        self.was_killed = False

    async def dump(self, pids: list[int], at_cut: AtCut, *, usual_s: float, deadline: float | None) -> CriuExit:
        """``pids``: the tree. ``usual_s``: CRIU's time limit where there is no ``deadline`` (monotonic)."""
        context = self._context
        hook = context.store.layout.root / ".hook"
        argv = dump_command(
            context.criu,
            root_pid=context.cell.root_pid_in_cell,
            images=await self._archivist.listen(self._draft.path / _SPILL),
            stream=True,
            log=self._draft.dump_log,
            action_script=prepare_hook(hook),
            leave_running=self._leave_running,
            lock_network=has_tcp_connections(pids),
            terminal=context.cell.terminal,
        )
        with contextlib.closing(WaysOfLinks(pids)) as ways:
            await asyncio.to_thread(ways.clear)
            async with self._devices.aside(left(deadline, math.inf)):
                return await self._run(argv, at_cut, left(deadline, usual_s), hook, ways)

    async def _run(self, argv: list[str], at_cut: AtCut, limit_s: float, hook: Path, ways: WaysOfLinks) -> CriuExit:
        cell, log, clean = self._context.cell, self._draft.dump_log, False
        try:
            ended = await cell.criu(argv, limit_s=limit_s, stderr=log, hook=hook, at_cut=at_cut)
            self.was_killed = ended.killed
            # A dump that ends the tree leaves its network lock for a restore to lift, which may never come; but
            # without it peers that are to be kept would be told that nobody is there any more.
            kept = ended.code == 0 and self._context.options.tcp == "keep"
            clean = not ended.broke_off and (self._leave_running or kept)
        finally:
            if not clean:
                everyone = [*cell.tree(), *cell.strays()]
                await asyncio.to_thread(cure, everyone, log=read_log(log))
                await asyncio.to_thread(ways.clear)
                await cell.release()
        return ended

    async def why_it_failed(self, ended: CriuExit, cut_error: Exception | None) -> DumpFailedError:
        """``cut_error``: what went wrong while the tree stood still, if it was not CRIU."""
        if not self._archivist.alive:
            return DumpFailedError(
                "the process that takes snapshots in has died",
                tip="was it killed for want of memory? see dmesg; a smaller --memory-limit may help",
            )
        if BROKEN_PIPE in read_log(self._draft.dump_log):  # it was us who ended it, and know why
            await self._archivist.captured(self._draft.images)
        return failure_of(ended, cut_error, self._draft.dump_log)
