"""How a program of the zoo tells its progress."""

from __future__ import annotations

import json
import os
import time


def report(step: int, **metrics: float) -> None:
    """One more line in ``metrics.jsonl``; then a rest of ``ZOO_REST`` seconds."""
    with open("metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, **metrics}) + "\n")
    time.sleep(float(os.environ.get("ZOO_REST", "0")))
