"""A training that is at work, until something outside of it keeps it: then it stands still and uses nothing.

From the step on whose number lies in a file ``stuck-from`` beside its working directory, it waits in each step for
somebody to open the pipe ``wake`` beside it. Started by torchrun, the first rank does so, and the others wait for it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rest import HURRY

STUCK = Path("../stuck-from")
COMPUTES_S, RESTS_S = 0.01, 0.002  # never longer: a dump is to find it at work, on a busy machine too


def compute() -> None:
    until = time.monotonic() + COMPUTES_S
    while time.monotonic() < until and not HURRY.exists():
        pass


def meeting() -> Callable[[], object]:
    """Where all ranks wait for each other."""
    if "RANK" not in os.environ:
        return lambda: None
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    number = torch.ones(1)
    return lambda: dist.all_reduce(number)


def main(steps: int) -> None:
    meet = meeting()
    rank = int(os.environ.get("RANK", "0"))
    with open("metrics.jsonl" if rank == 0 else f"rank{rank}.jsonl", "a") as metrics:
        for step in range(steps):
            if rank == 0 and STUCK.exists() and step >= int(STUCK.read_text()):
                with open("../wake"):
                    pass
            compute()
            meet()
            metrics.write(json.dumps({"step": step}) + "\n")
            metrics.flush()
            if not HURRY.exists():
                time.sleep(RESTS_S)


if __name__ == "__main__":
    main(int(sys.argv[1]))
