"""What has been asked of the supervisor and not been done yet: dumps, and to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from criu_train.errors import CriuTrainError
from criu_train.store.snapshot import Snapshot

DumpResult = Snapshot | CriuTrainError


@dataclass
class _WantedDump:
    trigger: str
    done: asyncio.Future[DumpResult]


class Requests:
    """Dump requests fold: those that come while a dump runs become one more, and none interrupts another."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._wanted: _WantedDump | None = None
        self.stop_signal: signal.Signals | None = None
        self.kill_now = asyncio.Event()

    def dump(self, trigger: str) -> asyncio.Future[DumpResult]:
        """Ask for a dump that starts after now. The first trigger of those folded together names it."""
        if self._wanted is None:
            self._wanted = _WantedDump(trigger, asyncio.get_running_loop().create_future())
        self._news.set()
        return self._wanted.done

    def take_dump(self) -> _WantedDump | None:
        """The dump that is wanted, which is not wanted any more."""
        wanted, self._wanted = self._wanted, None
        return wanted

    def stop(self, number: signal.Signals) -> None:
        """Ask to stop; asked twice by Ctrl-C, at once."""
        if self.stop_signal is signal.SIGINT and number is signal.SIGINT:
            self.kill_now.set()
        elif self.stop_signal is None:
            self.stop_signal = number
        self._news.set()

    def refuse_dumps(self, reason: CriuTrainError) -> None:
        """Answer whoever still waits: there will be no dump."""
        if (wanted := self.take_dump()) is not None:
            wanted.done.set_result(reason)

    async def news(self) -> None:
        """Return once something has been asked."""
        await self._news.wait()
        self._news.clear()


@contextmanager
def signals_become(requests: Requests) -> Iterator[None]:
    """SIGUSR1 asks for a dump, SIGTERM and SIGINT to stop; SIGHUP (a lost terminal) changes nothing."""
    loop = asyncio.get_running_loop()
    handlers = {
        signal.SIGUSR1: lambda: requests.dump("signal"),
        signal.SIGTERM: lambda: requests.stop(signal.SIGTERM),
        signal.SIGINT: lambda: requests.stop(signal.SIGINT),
        signal.SIGHUP: lambda: None,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
