"""What surrounds a training, found out in time: a dump waits for nothing that only explains."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

from criu_train.errors import StoreError
from criu_train.store.environment import Environment
from criu_train.store.manifest import Manifest
from criu_train.store.snapshot import MANIFEST
from criu_train.store.state import Run
from criu_train.workspace.survey import survey

# Looking takes a tenth of a second; a dead network filesystem, or one that is mounted on demand, holds it up for ever.
LIMIT_S = 3.0
# For the last dump, whose time is short.
LAST_LIMIT_S = 0.3
_NAME = "survey"


async def survey_in_time(
    pids: Sequence[int], run: Run, earlier: Sequence[Path], limit_s: float = LIMIT_S
) -> Environment | None:
    """What ``survey`` finds, or what the run's newest snapshot knew, or None. ``earlier``: snapshots, newest first."""
    known = await asyncio.to_thread(_known, run, earlier)
    if any(thread.name == _NAME for thread in threading.enumerate()):  # it hangs since an earlier dump
        return known
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Environment | None] = loop.create_future()

    def tell(found: Environment | None) -> None:
        if not answer.done():
            answer.set_result(found)

    def look() -> None:
        found = survey(pids, run.cwd, known)
        with contextlib.suppress(RuntimeError):  # nobody is there any more
            loop.call_soon_threadsafe(tell, found)

    # A thread of its own: one of the loop's would be waited for at the end, for ever if it hangs.
    with contextlib.suppress(TimeoutError, RuntimeError):
        threading.Thread(target=look, name=_NAME, daemon=True).start()
        return await asyncio.wait_for(answer, limit_s) or known
    return known


def _known(run: Run, earlier: Sequence[Path]) -> Environment | None:
    for path in earlier:
        with contextlib.suppress(OSError, StoreError):
            manifest = Manifest.from_json((path / MANIFEST).read_bytes())
            if manifest.run == run.id and manifest.environment:
                return manifest.environment
    return None
