"""GPU memory is out of CRIU's way: moved to main memory around a dump, put back after it and after a restore."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from criu_train.archive.budget import spare_memory
from criu_train.cell.cell import Cell
from criu_train.cell.records import CellLostError
from criu_train.cuda.command import gpu_memory, helper_command, uses_cuda
from criu_train.cuda.helper import DONE, PASSING
from criu_train.errors import DumpFailedError, RestoreFailedError
from criu_train.supervisor.dump_errors import PassingFailureError
from criu_train.units import format_size

_SAID = ".gpu.log"  # in the store; what the helper says about a failure
# NVIDIA's driver moves about 2 GiB/s, less on a busy machine.
_LIMIT_S, _LIMIT_PER_GIB_S = 60.0, 10.0
_TIP = "docs/gpus.md tells what NVIDIA's driver can do"


class Devices:
    """Of one dump. ``bytes``: on GPUs. ``aside_us``: how long their owners stood still, None as long as they do."""

    def __init__(self, cell: Cell, store: Path) -> None:
        self._cell = cell
        self._said = store / _SAID
        self._limit_s = _LIMIT_S
        self.used = False
        self.bytes = 0
        self.aside_us: int | None = None
        self.problem = ""  # why they could not be given back: the training is ended, and goes on from the snapshot

    async def look(self, pids: list[int]) -> None:
        """While the tree runs."""
        self.used = await asyncio.to_thread(uses_cuda, pids)
        if self.used:
            self.bytes = await asyncio.to_thread(gpu_memory, pids)
            self._limit_s = _limit_for(self.bytes)

    def check_memory(self) -> None:
        """Raises DumpFailedError where main memory has no room for what is on the GPUs."""
        spare = spare_memory()
        if self.bytes > spare:
            raise DumpFailedError(
                f"{format_size(self.bytes)} on the GPU do not fit into main memory: {format_size(spare)} are free",
                tip="a dump moves them there first; a smaller --memory-limit leaves more room for them",
            )

    @asynccontextmanager
    async def aside(self, limit_s: float) -> AsyncIterator[None]:
        """Within it no process of the tree holds a GPU. Raises DumpFailedError when that can't be in time."""
        if not self.used:
            yield
            return
        began = time.monotonic()
        try:
            code = await self._run("aside", min(limit_s, self._limit_s))
            if code != DONE:
                kind = PassingFailureError if code == PASSING else DumpFailedError
                raise kind(f"GPU memory can't be saved: {self._words(code)}", tip=_TIP)
            yield
        finally:
            await self._give_back()
            self.aside_us = round((time.monotonic() - began) * 1e6)

    async def _give_back(self) -> None:
        if self._cell.ended.done():
            return
        with contextlib.suppress(CellLostError):
            if (code := await self._run("back", self._limit_s)) != DONE:
                self.problem = f"the GPU could not be given back to the training: {self._words(code)}"

    def end_the_stuck(self) -> None:
        """Whoever has no GPU any more waits for it for ever; the training is ended, and then restored."""
        if self.problem and self._cell.root_pid and not self._cell.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._cell.root_pid, signal.SIGKILL)

    async def restored(self, memory_bytes: int) -> None:
        """After CRIU has restored a tree of so much memory that was dumped so. Raises RestoreFailedError."""
        code = await self._run("back", _limit_for(memory_bytes))
        if code != DONE:
            raise RestoreFailedError(f"GPU memory could not be restored: {self._words(code)}", tip=_TIP)

    async def _run(self, action: Literal["aside", "back"], limit_s: float) -> int:
        self._said.unlink(missing_ok=True)
        undo = helper_command("back") if action == "aside" else None
        return await self._cell.helper(helper_command(action), said=self._said, limit_s=limit_s, undo=undo)

    def _words(self, code: int) -> str:
        said = ""
        with contextlib.suppress(OSError):
            said = self._said.read_text(errors="replace").strip()
        if code < 0:
            return "it took too long, or was killed"
        return said.splitlines()[-1] if said else f"exit code {code}"


def _limit_for(size: int) -> float:
    return _LIMIT_S + _LIMIT_PER_GIB_S * size / (1 << 30)
