"""What has been asked of the supervisor and not been done yet: dumps, and to stop."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from criu_train.errors import CriuTrainError
from criu_train.store.snapshot import Snapshot

DumpResult = Snapshot | CriuTrainError


@dataclass
class WantedDump:
    """A dump that was asked for; ``done`` tells whoever asked."""

    trigger: str
    done: asyncio.Future[DumpResult]


class Requests:
    """Dump requests fold: those that come while a dump runs become one more, and none interrupts another."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._wanted: WantedDump | None = None
        self.stop_signal: signal.Signals | None = None
        self.stop_wanted = asyncio.Event()
        self._stop_asked_at = 0.0
        self.kill_now = asyncio.Event()
        self.on_resize: Callable[[], None] = lambda: None

    def dump(self, trigger: str) -> asyncio.Future[DumpResult]:
        """Ask for a dump that starts after now. The first trigger of those folded together names it."""
        if self._wanted is None:
            self._wanted = WantedDump(trigger, asyncio.get_running_loop().create_future())
        self._news.set()
        return self._wanted.done

    def take_dump(self) -> WantedDump | None:
        """The dump that is wanted, which is not wanted any more."""
        wanted, self._wanted = self._wanted, None
        return wanted

    def stop(self, number: signal.Signals) -> None:
        """Ask to stop; asked twice by Ctrl-C, at once."""
        if self.stop_signal is signal.SIGINT and number is signal.SIGINT:
            self.kill_now.set()
        elif self.stop_signal is None:
            self.stop_signal = number
            self._stop_asked_at = time.monotonic()
            self.stop_wanted.set()
        self._news.set()

    def resized(self) -> None:
        """Our own terminal has another size."""
        self.on_resize()

    def grace_left(self, grace_s: float) -> float:
        """Seconds until the grace that began with the signal is over, never below 0; all of it before a signal."""
        if self.stop_signal is None:
            return grace_s
        return max(0.0, self._stop_asked_at + grace_s - time.monotonic())

    async def patiently(self, work: asyncio.Future[Any], grace_s: float) -> bool:
        """Wait for it; once asked to stop, only as long as the grace lasts. False when patience ended first."""
        stop = asyncio.ensure_future(self.stop_wanted.wait())
        kill = asyncio.ensure_future(self.kill_now.wait())
        try:
            everything: set[asyncio.Future[Any]] = {work, stop, kill}
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not kill.done():
                rest: set[asyncio.Future[Any]] = {work, kill}
                await asyncio.wait(rest, timeout=self.grace_left(grace_s), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody asks any more
            return work.done()
        finally:
            stop.cancel()
            kill.cancel()

    def refuse_dumps(self, reason: CriuTrainError) -> None:
        """Answer whoever still waits: there will be no dump."""
        if (wanted := self.take_dump()) is not None:
            wanted.done.set_result(reason)

    async def news(self) -> None:
        """Return once something has been asked."""
        await self._news.wait()
        self._news.clear()


def ignored_signals() -> tuple[int, ...]:
    """What whoever started us has told us to ignore, as nohup does: the training is to ignore it as well.

    Call before ``signals_become``. The interpreter itself ignores SIGPIPE and SIGXFSZ, which nobody asked for.
    """
    by_the_interpreter = {signal.SIGPIPE, signal.SIGXFSZ}
    return tuple(n for n in signal.valid_signals() - by_the_interpreter if signal.getsignal(n) is signal.SIG_IGN)


@contextmanager
def signals_become(requests: Requests) -> Iterator[None]:
    """SIGUSR1 asks for a dump, SIGTERM and SIGINT to stop; SIGWINCH tells of another size of our terminal.

    SIGHUP (a lost terminal) changes nothing.
    """
    loop = asyncio.get_running_loop()
    handlers = {
        signal.SIGUSR1: lambda: requests.dump("signal"),
        signal.SIGTERM: lambda: requests.stop(signal.SIGTERM),
        signal.SIGINT: lambda: requests.stop(signal.SIGINT),
        signal.SIGHUP: lambda: None,
        signal.SIGWINCH: requests.resized,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
