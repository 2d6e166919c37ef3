"""A training with checkpoints of its own: a chain of digests, a line of metrics a step, ``last.json`` every 5 steps.

With ``--resume last.json`` it goes on from there, and cuts off the metrics that came after.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from rest import rest

METRICS = Path("metrics.jsonl")


def begin(checkpoint: Path | None) -> tuple[int, str]:
    if checkpoint is None:
        return 0, ""
    step, digest, size = json.loads(checkpoint.read_text())
    with METRICS.open("r+b") as file:
        file.truncate(size)
    return step, digest


def keep(step: int, digest: str) -> None:
    new = Path("last.json.new")
    new.write_text(json.dumps([step, digest, METRICS.stat().st_size]))
    new.rename("last.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--resume", type=Path)
    arguments = parser.parse_args()
    step, digest = begin(arguments.resume)
    print(f"begins at step {step}", flush=True)
    while step < arguments.steps:
        step += 1
        digest = hashlib.sha256(digest.encode()).hexdigest()
        with METRICS.open("a") as metrics:
            metrics.write(json.dumps({"step": step, "digest": digest}) + "\n")
        if step % 5 == 0:
            keep(step, digest)
        rest(0.03)


if __name__ == "__main__":
    main()
