"""Files that come and go: what is made where everybody puts what is short-lived is told a second later, if at all.

A training may make millions of names that live for a millisecond (semaphores, pickled batches). Nobody will ask for
them, and a journal must not fill up with them. Standard library only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_PLACES = ("/dev/shm/", "/tmp/", "/run/")  # noqa: S108
_HOLD_S = 1.0
# So many that live less than that is a flood; then they are told at once.
_HELD_MAX = 50_000

Key = tuple[str, str]  # who, path


class Passing:
    """Holds new paths back. ``inside``: directories of which everything is to be known at once.

    Bits are those of the journal; ``clock`` counts seconds.
    """

    def __init__(self, inside: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._inside = inside
        self._clock = clock
        self._held: dict[Key, tuple[int, float]] = {}  # the oldest first

    def holds(self, key: Key, bits: int, *, new: bool, gone: bool) -> bool:
        """Whether this is not to be told now. ``new``: not heard of before, and just created."""
        path = key[1]
        held = self._held.get(key)
        if held is None and not (new and path.startswith(_PLACES) and not path.startswith(self._inside)):
            return False
        if gone and not os.path.lexists(path):
            self._held.pop(key, None)
        elif held is not None:
            self._held[key] = (held[0] | bits, held[1])
        else:
            self._held[key] = (bits, self._clock())
        return True

    def due(self, *, everything: bool = False) -> dict[Key, int]:
        """What has been there long enough, and still is."""
        until = self._clock() - _HOLD_S
        if everything or len(self._held) > _HELD_MAX:
            until = float("inf")
        due: dict[Key, int] = {}
        for key, (bits, since) in self._held.items():
            if since > until:
                break
            due[key] = bits
        for key in due:
            del self._held[key]
        return {key: bits for key, bits in due.items() if os.path.lexists(key[1])}

    def __len__(self) -> int:
        return len(self._held)
