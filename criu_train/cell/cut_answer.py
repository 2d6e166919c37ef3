"""The answer to CRIU's question at the cut: whether the dump goes on, given while the tree stands still."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from criu_train.cell.link import Message
from criu_train.cell.records import CellLostError, Cut

# What a cut gets that is still at work when its CRIU, or the cell, has ended.
_SETTLES_S = 5.0

AtCut = Callable[[Cut], Awaitable[bool]]


class CutAnswer:
    """``send`` takes the answer to init; it may raise CellLostError. One CRIU at a time."""

    def __init__(self, send: Callable[[bool], None]) -> None:
        self._send = send
        self._at_cut: AtCut | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, at_cut: AtCut | None) -> None:
        """A CRIU is about to run; without ``at_cut`` its question is answered with no."""
        self._at_cut = at_cut

    def ask(self, message: Message) -> None:
        """The tree stands still, and CRIU waits."""
        self._task = asyncio.get_running_loop().create_task(self._answer(Cut(**message)))

    async def settle(self) -> None:
        """That CRIU, or the cell, has ended: wait a little for what is still at work, and raise what it raised."""
        task = self._task
        if task is not None:
            await asyncio.wait((task,), timeout=_SETTLES_S)
        self._task = self._at_cut = None
        if task is None:
            return
        if task.done():
            task.result()
        else:
            task.cancel()

    async def _answer(self, cut: Cut) -> None:
        go = False
        try:
            go = self._at_cut is not None and await self._at_cut(cut)
        finally:
            # An answer that comes too late must not be taken for one to the next dump's question.
            if asyncio.current_task() is self._task:
                with contextlib.suppress(CellLostError):
                    self._send(go)
