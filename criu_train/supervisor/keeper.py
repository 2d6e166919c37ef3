"""The archive's worker as the supervisor keeps it: one for all dumps and restores, replaced when it has died."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from criu_train.archive.archivist import Archivist


class Keeper:
    """Starts the worker when it is first needed. ``memory_limit``: bytes for captures, None for a share of the free."""

    def __init__(self, runtime: Path, memory_limit: int | None) -> None:
        self._runtime = runtime
        self._memory_limit = memory_limit
        self._archivist: Archivist | None = None

    async def archivist(self) -> Archivist:
        """A worker that lives. Raises CriuTrainError when none can be started."""
        if self._archivist is None or not self._archivist.alive:
            await self.close()
            self._archivist = await Archivist.start(self._runtime, memory_limit=self._memory_limit)
        return self._archivist

    def hurry(self, seconds: float) -> None:
        """What is being packed has to be done within so many seconds."""
        if self._archivist is not None and self._archivist.alive:
            self._archivist.hurry(seconds)

    async def close(self) -> None:
        """End the worker."""
        if self._archivist is not None:
            archivist, self._archivist = self._archivist, None
            await archivist.close()

    async def __aenter__(self) -> Keeper:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
