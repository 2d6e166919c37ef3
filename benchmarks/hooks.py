"""What ``hooks.report`` costs a call, beside an empty function and ``logging.info`` to nowhere, in one paired run.

.venv/bin/python benchmarks/hooks.py
"""

from __future__ import annotations

import logging
import os
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

from bench import machine, spread

from criu_train import hooks
from criu_train.hooks.layout import VARIABLE
from criu_train.supervisor.hook_files import HookFiles

CALLS, ROUNDS = 20_000, 25


def empty(**_: object) -> None:
    pass


def main() -> None:
    print(machine())
    logger = logging.getLogger("nowhere")
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "base" / "store"
        files = HookFiles(directory, generation=0, owner=(os.geteuid(), os.getegid()))
        os.environ[VARIABLE] = str(directory)
        assert hooks.active()
        calls: dict[str, Callable[[], object]] = {
            "empty function": lambda: empty(step=1, loss=0.5, accuracy=0.25),
            "hooks.report": lambda: hooks.report(step=1, loss=0.5, accuracy=0.25),
            "logging.info": lambda: logger.info("step %d loss %f accuracy %f", 1, 0.5, 0.25),
        }
        took: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                took[name].append(timeit.timeit(call, number=CALLS) / CALLS * 1e6)
        files.close()
    for name, times in took.items():
        print(f"{name:15}  {spread(times)} microseconds a call")
    for name in ("empty function", "logging.info"):
        ratios = [ours / other for ours, other in zip(took["hooks.report"], took[name], strict=True)]
        print(f"hooks.report / {name}: {spread(ratios)}")


if __name__ == "__main__":
    main()
