"""Locks as programs take them: a run's flock held throughout, and workers that append under lockf, turn by turn."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from progress import report
from softmax import Softmax


def locked_append(path: str, line: str) -> None:
    with open(path, "a+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        file.write(line)
        file.flush()
        time.sleep(0.001)  # while the others wait


def work(number: int, steps: int) -> None:
    model = Softmax(seed=number)
    for step in range(steps):
        locked_append("results.csv", f"{number},{step},{model.step()!r}\n")
        if not Path("../hurry").exists():
            time.sleep(float(os.environ.get("ZOO_REST", "0")))
    np.save(f"weights-{number}.npy", model.weights)


def main(steps: int) -> None:
    lock = open("run.lock", "w")  # noqa: SIM115 - held as long as the run lasts
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    Path("results.csv").touch()
    guard = open("results.csv.guard", "wb+")  # noqa: SIM115 - a range of it is held
    guard.write(bytes(64))
    guard.flush()
    fcntl.lockf(guard, fcntl.LOCK_EX, 16, 8)
    workers = [subprocess.Popen([sys.executable, __file__, str(steps), str(number)]) for number in range(3)]
    model = Softmax(seed=9)
    for step in range(steps):
        locked_append("results.csv", f"main,{step},{model.step()!r}\n")
        report(step, accuracy=model.accuracy())
    print("workers ended with", [worker.wait() for worker in workers])
    try:
        with open("run.lock") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("the lock was lost")
    except BlockingIOError:
        print("the lock is held")
    rows = sorted(Path("results.csv").read_text().splitlines())
    Path("results.csv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1])) if len(sys.argv) < 3 else work(int(sys.argv[2]), int(sys.argv[1]))
