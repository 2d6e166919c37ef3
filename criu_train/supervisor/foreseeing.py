"""Before a training is dumped first: what a snapshot would not carry, told once, in time, and never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence

from criu_train.doctor.preflight import Finding, scan
from criu_train.store.events import EventLog
from criu_train.supervisor.reporter import Reporter

# Looking takes some hundredths of a second; what hangs is left behind.
LIMIT_S = 3.0


class Foresight:
    """Tells each thing that is not just fine, by the reporter and in ``events.jsonl``."""

    def __init__(self, events: EventLog, reporter: Reporter) -> None:
        self._events = events
        self._reporter = reporter
        self._told = False

    async def tell_once(self, root_pid: int, limit_s: float = LIMIT_S) -> None:
        """Look at the tree below this process, the first time that this is called. Never raises."""
        if self._told:
            return
        self._told = True
        for one in await _scan_in_time(root_pid, limit_s):
            if one.level != "fine":
                self._events.append("preflight", level=one.level, what=one.what, why=one.why, tip=one.tip)
                snapshots_fail = "snapshots would not work: " if one.level == "blocks" else ""
                self._reporter.warning(f"{snapshots_fail}{one.what}", one.tip)


async def _scan_in_time(root_pid: int, limit_s: float) -> Sequence[Finding]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[Finding]] = loop.create_future()

    def tell(found: Sequence[Finding]) -> None:
        if not answer.done():
            answer.set_result(found)

    def look() -> None:
        found: Sequence[Finding] = ()
        with contextlib.suppress(Exception):  # it only explains: no mistake in it may cost a dump
            found = scan([root_pid])
        with contextlib.suppress(RuntimeError):  # nobody is there any more
            loop.call_soon_threadsafe(tell, found)

    # A thread of its own: one of the loop's would be waited for at the end, for ever if it hangs.
    with contextlib.suppress(TimeoutError, RuntimeError):
        threading.Thread(target=look, name="preflight", daemon=True).start()
        return await asyncio.wait_for(answer, limit_s)
    return ()
