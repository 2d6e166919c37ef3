"""A watch that is told to kill leaves a dump that it interrupts the time to mend what it has begun."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any, cast

import pytest

from criu_train.cell.records import Ended
from criu_train.store.events import EventLog
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.requests import Requests
from criu_train.supervisor.schedule import Schedule
from criu_train.supervisor.watching import Watcher


class Cell:
    def __init__(self) -> None:
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    async def kill(self) -> None:
        self.ended.set_result(Ended(code=-9))
        await asyncio.sleep(0.01)


class Dumper:
    """Its dump lasts until the cell is gone, and then has something to mend."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.mended = self.abandoned = False

    async def dump(self, trigger: str, **_: object) -> None:
        try:
            await asyncio.shield(self._cell.ended)
        finally:
            await asyncio.sleep(0.1)
            self.mended = True

    def hurry(self, seconds: float) -> None:
        pass

    def abandon(self) -> None:
        self.abandoned = True


class Anything:
    """Takes whatever it is told."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.mark.parametrize("asked_for", [signal.SIGUSR1, None])
async def test_what_an_interrupted_dump_has_begun_is_mended_before_the_watch_ends(
    tmp_path: Path, asked_for: signal.Signals | None
) -> None:
    cell, requests = Cell(), Requests()
    dumper = Dumper(cell)
    watcher = Watcher(
        cell=cast(Any, cell),
        dumper=cast(Any, dumper),
        requests=requests,
        store=cast(Any, Anything()),
        state=cast(Any, Anything()),
        events=EventLog(tmp_path / "events.jsonl"),
        reporter=cast(Any, Anything()),
        options=RunOptions(every=None),
        schedule=Schedule(None, None),
    )
    watch = asyncio.ensure_future(watcher.watch())
    if asked_for is not None:
        requests.dump("signal")
    await asyncio.sleep(0.05)
    for _ in range(2):  # the second Ctrl-C kills at once
        requests.stop(signal.SIGINT)
        await asyncio.sleep(0.05)
    assert (await asyncio.wait_for(watch, 5)).how == "killed"
    assert dumper.mended
    assert dumper.abandoned
