"""One failure of CRIU that people meet, and the words that many of them share."""

from __future__ import annotations

import re
from dataclasses import dataclass

AGAIN = "this passes by itself, the next dump will do"
CLOSE = "close it before the dump, or stop using it: CRIU can't save its state"
LAUNCH = "start the training through `criu-train run`"
OLDER = "an older snapshot or a cold start is used instead"
OLDER_ONLY = "an older snapshot is used instead"
NEWER = "run `criu-train setup`, which gets a CRIU that fits this kernel"
PRIVILEGED = "run as root; in a container: --privileged"
SPACE = "free space there, keep fewer snapshots with --keep, or put the store elsewhere with --store"


@dataclass(frozen=True)
class Failure:
    """``pattern`` is looked for in CRIU's log; its groups fill ``{0}``, ``{1}``, … of the two sentences.

    ``name`` is what the table in docs/troubleshooting.md and the logs of the tests call it. ``passing``: a moment
    later it is gone. ``mendable``: not the snapshot's fault; what is around it can be mended.
    """

    name: str
    pattern: re.Pattern[str]
    what: str
    tip: str
    passing: bool = False
    mendable: bool = False


def row(name: str, pattern: str, what: str, tip: str, *, passing: bool = False, mendable: bool = False) -> Failure:
    return Failure(name, re.compile(pattern, re.MULTILINE), what, tip, passing, mendable)
