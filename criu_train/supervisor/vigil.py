"""Watching over a restored training until it surely moves: it runs all the while, nothing is kept from it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from criu_train.cell.pulse import Pulse, moved, threads_of, worked

# Between two looks: a share of the limit within these bounds.
_LOOKS, _SHORTEST_S, _LONGEST_S = 20, 0.2, 1.0
_LEISURELY_S = 5.0  # once the limit is over
# So often it has to be seen moving: even one that will never get anywhere comes to the end of its step.
_MOTIONS = 10
# How long a tree is looked at before a dump, beside what has to be done anyway.
_GLANCE_S = 0.25


async def at_work(pids: Sequence[int], known: bool | None) -> bool:
    """Whether these processes are at work just now; one that only waits for a moment may be taken for idle."""
    if known is not None:
        return known
    before = await asyncio.to_thread(threads_of, pids)
    began = time.monotonic()
    await asyncio.sleep(_GLANCE_S)
    return worked(before, await asyncio.to_thread(threads_of, pids), time.monotonic() - began)


class Vigil:
    """``look``: at the tree as it is now; without it there is nothing to be watched.

    ``on_motion`` is called once it is sure that it moves; ``to_be_ended`` once, when it has stood still for ``limit_s``
    seconds in a row.
    """

    def __init__(
        self,
        look: Callable[[], Pulse] | None = None,
        limit_s: float = math.inf,
        *,
        on_motion: Callable[[], None] = lambda: None,
        to_be_ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._look = look
        self._limit_s = limit_s
        self._on_motion = on_motion
        self._to_be_ended = to_be_ended
        self._interval_s = min(max(limit_s / _LOOKS, _SHORTEST_S), _LONGEST_S)
        self._last: Pulse | None = None
        self._still_s = 0.0
        self._asked = self._moving = False
        self._motions = 0

    @property
    def stands_still(self) -> bool:
        """Whether it did nothing lately, as far as this is watched."""
        return self._look is not None and not self._moving

    @property
    def is_over(self) -> bool:
        """Whether it surely moves, or never was to be watched."""
        return self._look is None

    @property
    def pause_s(self) -> float | None:
        """How long to wait before the next look, None where none is needed any more."""
        if self._look is None:
            return None
        return _LEISURELY_S if self._asked else self._interval_s

    async def look(self) -> None:
        """See whether it has moved; the first look tells what the next ones are compared with.

        Time counts against it only where everybody was seen waiting, since whoever is stopped, held by a disk or gets
        no processor might be about to go on; nor does time in which nobody looked.
        """
        if self._look is None:
            return
        pulse, last = await asyncio.to_thread(self._look), self._last
        if last is None:
            self._last = pulse
            return
        if not pulse.threads:
            return  # its end is told in a moment
        passed = pulse.at - last.at
        in_time = passed >= self._interval_s / 2  # one that was asked for early adds to the next
        if moved(last, pulse):
            self._moving, self._still_s = True, 0.0
            self._motions += in_time
        elif in_time:
            self._moving = False
            self._still_s += min(passed, self._interval_s) if pulse.waits else 0.0
        if in_time:
            self._last = pulse
        if self._motions == _MOTIONS:
            self._look = None
            self._on_motion()

    async def begin_anew(self) -> None:
        """CRIU has been at work in the tree: what changed by that is no motion."""
        self._last = None
        await self.look()

    def is_to_be_ended(self) -> bool:
        """Whether it has stood still for too long, and is not to be left running."""
        if self._look is None or self._asked or self._still_s < self._limit_s:
            return False
        self._asked = True
        return self._to_be_ended()
