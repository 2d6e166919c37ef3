"""Trainings that hold one thing each: ``doomed.py MODE[+MODE…] [OUTSIDE]`` makes it, then writes a line a step.

Some can be carried by a snapshot and some can't: which, stands in tests/doctor/. What can be used is used in each step,
so that a thing that came back broken ends the training. ``OUTSIDE``: a path or number that the test has prepared.
"""

from __future__ import annotations

import json
import sys
import time

from held import descriptors, ends, tasks

MODES = descriptors.MODES | ends.MODES | tasks.MODES


def main(modes: str, outside: str = "") -> None:
    uses = [MODES[mode](outside) for mode in modes.split("+")]
    with open("metrics.jsonl", "a") as metrics:
        for step in range(100_000):
            for use in uses:
                use(step)
            metrics.write(json.dumps({"step": step}) + "\n")
            metrics.flush()
            time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
