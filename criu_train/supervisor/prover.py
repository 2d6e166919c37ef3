"""Trial restores of a running training's snapshots, one after the other, beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Literal

from criu_train.errors import CriuTrainError
from criu_train.store.events import EventLog
from criu_train.store.snapshot import Snapshot
from criu_train.store.store import Store
from criu_train.supervisor.proving import prove
from criu_train.supervisor.reporter import Reporter


class Prover:
    """``policy``: ``every`` snapshot, the ``newest`` one whenever the last trial is over, or ``never``."""

    def __init__(
        self, store: Store, policy: Literal["every", "newest", "never"], events: EventLog, reporter: Reporter
    ) -> None:
        self._store = store
        self._policy = policy
        self._events = events
        self._reporter = reporter
        self._waiting: deque[Snapshot] = deque(maxlen=1 if policy == "newest" else None)
        self._task: asyncio.Task[None] | None = None

    def take(self, snapshot: Snapshot) -> None:
        """There is a new one."""
        if self._policy == "never":
            return
        self._waiting.append(snapshot)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """What was not tried is not tried any more."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _work(self) -> None:
        while self._waiting:
            snapshot = self._waiting.popleft()
            with contextlib.suppress(OSError):  # pruned meanwhile
                await self._try(snapshot)

    async def _try(self, snapshot: Snapshot) -> None:
        try:
            problems = await prove(self._store, snapshot)
        except CriuTrainError as error:
            self._events.append("not_proven", snapshot=snapshot.id, reason=str(error))
            self._reporter.warning(f"snapshot {snapshot.id} could not be tried: {error}", error.tip)
            return
        if snapshot.path.exists():
            self._events.append("proven", snapshot=snapshot.id, ok=not problems, problems=list(problems))
            if problems:
                self._reporter.warning(
                    f"a trial restore of {snapshot.id} failed: {problems[0]}",
                    "older ones may work: see `criu-train snapshot list`, and `snapshot verify --deep`",
                )
