"""How a training rests after a step: not at all while there is a file ``hurry`` beside its working directory."""

from __future__ import annotations

import time
from pathlib import Path


def rest(seconds: float) -> None:
    """So that tests find it at work, and need not wait for its end."""
    if not Path("../hurry").exists():
        time.sleep(seconds)
