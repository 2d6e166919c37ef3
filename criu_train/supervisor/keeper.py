"""The archive's worker as the supervisor keeps it: one for all dumps and restores, replaced when it has died."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType

from criu_train.archive.archivist import Archivist
from criu_train.store.seal import Seal, told


class Keeper:
    """Starts the worker when it is first needed. ``memory_limit``: bytes for captures, None for a share of the free.

    ``seal``: the store's.
    """

    def __init__(self, runtime: Path, memory_limit: int | None, seal: Seal) -> None:
        self._runtime = runtime
        self._memory_limit = memory_limit
        self._seal = seal
        self._archivist: Archivist | None = None
        self._starting = asyncio.Lock()
        self._warming: asyncio.Future[Archivist] | None = None

    def warm_up(self) -> None:
        """Start the worker beside whatever is done now; a failure is told to whoever asks for the worker."""
        self._warming = asyncio.ensure_future(self.archivist())
        self._warming.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def archivist(self) -> Archivist:
        """A worker that lives. Raises CriuTrainError when none can be started."""
        async with self._starting:
            if self._archivist is None or not self._archivist.alive:
                await self._end()
                self._archivist = await Archivist.start(
                    self._runtime, memory_limit=self._memory_limit, secret=told(self._seal)
                )
            return self._archivist

    def hurry(self, seconds: float) -> None:
        """What is being packed has to be done within so many seconds."""
        if self._archivist is not None and self._archivist.alive:
            self._archivist.hurry(seconds)

    def abandon(self) -> None:
        """Nobody wants any more what the worker is at: end it now."""
        if self._archivist is not None:
            self._archivist.kill()

    async def _end(self) -> None:
        if self._archivist is not None:
            archivist, self._archivist = self._archivist, None
            await archivist.close()

    async def __aenter__(self) -> Keeper:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
        await self._end()
