"""How a training rests after a step, which files beside its working directory change.

Not at all while there is one named ``hurry``; ten times as long while there is one named ``amble``.
"""

from __future__ import annotations

import time
from pathlib import Path

HURRY, AMBLE = Path("../hurry"), Path("../amble")


def rest(seconds: float) -> None:
    """So that tests find it at work, and need not wait for its end."""
    if HURRY.exists():
        return
    time.sleep(seconds)
    for _ in range(9):
        if not AMBLE.exists():
            break
        time.sleep(seconds)
