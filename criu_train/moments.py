"""Moments of a dump and of a restore, by name: there tests put real faults in (tests/faults).

Where ``CRIU_TRAIN_HALT_AT`` is ``NAME:DIRECTORY``, whoever reaches that moment while there is a file ``armed`` in that
directory leaves a file ``reached`` with its PID there and waits for a file ``go``, as if the machine were slow just
then. Otherwise nothing happens.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# In their order.
DUMP = (
    "dump-begins",
    "dump-copied",  # what changed in files, ahead of the cut
    "dump-frozen",  # CRIU has streamed its images, the tree stands still
    "dump-captured",
    "dump-saved",  # files, too
    "dump-thawed",
    "dump-packing",
    "dump-packed",
    "images-synced",
    "manifest-written",
    "before-marker",
    "after-marker",
    "set-aside",  # an old snapshot that is being removed
    "before-sweep",
)
RESTORE = (
    "restore-chosen",
    "rollback-recorded",
    "rollback-kept",
    "rollback-step",  # the first one is done
    "rolled-back",
    "cell-ready",
    "restored",
    "rollback-committed",
)

_WISH = os.environ.get("CRIU_TRAIN_HALT_AT", "")
_LOOK_EVERY_S = 0.005
_LONGEST_S = 60.0


def reached(name: str) -> None:
    """``name``: one of those above."""
    if not _WISH.startswith(f"{name}:"):
        return
    directory = Path(_WISH.partition(":")[2])
    until = time.monotonic() + _LONGEST_S
    while (directory / "armed").exists() and not (directory / "go").exists() and time.monotonic() < until:
        if not (directory / "reached").exists():
            (directory / "reached").write_text(str(os.getpid()))
        time.sleep(_LOOK_EVERY_S)
