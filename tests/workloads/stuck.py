"""A training that is at work, until something outside of it keeps it: then it stands still and uses nothing.

From the step on whose number lies in a file ``stuck-from`` beside its working directory, it waits in each step for
somebody to open the pipe ``wake`` beside it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from rest import rest

STUCK = Path("../stuck-from")
HURRY = Path("../hurry")  # see rest.py
COMPUTES_S = 0.01


def main(steps: int) -> None:
    with open("metrics.jsonl", "a") as metrics:
        for step in range(steps):
            if STUCK.exists() and step >= int(STUCK.read_text()):
                with open("../wake"):
                    pass
            until = time.monotonic() + COMPUTES_S
            while time.monotonic() < until and not HURRY.exists():
                pass
            metrics.write(json.dumps({"step": step}) + "\n")
            metrics.flush()
            rest(COMPUTES_S)


if __name__ == "__main__":
    main(int(sys.argv[1]))
