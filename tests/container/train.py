"""A training of the standard library alone, which leaves the same bytes in every run.

It does to files what trainings do; a step done twice or not at all shows in at least one of them. A worker process
draws the numbers, so that there are a pipe, a queue and semaphores to carry along.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import mmap
import multiprocessing
import random
import sqlite3
import sys
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

IMAGES_OWN = Path("/app/notes.txt")  # lies in a lower layer until it is first written to


def draw(seed: int, wanted: Queue[int], drawn: Queue[float]) -> None:
    rng = random.Random(seed)
    while wanted.get() >= 0:
        drawn.put(rng.random())


def main(steps: int, delay: float, start_method: str) -> None:
    context: Any = multiprocessing.get_context(start_method)
    wanted: Queue[int] = context.Queue()
    drawn: Queue[float] = context.Queue()
    worker = context.Process(target=draw, args=(7, wanted, drawn))
    worker.start()
    handler = logging.handlers.RotatingFileHandler("train.log", maxBytes=700, backupCount=3)
    logger = logging.getLogger("train")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    database = sqlite3.connect("history.sqlite")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE losses (step INTEGER PRIMARY KEY, loss REAL)")
    Path("weights.bin").write_bytes(bytes(4096))
    weights_file = open("weights.bin", "r+b")  # noqa: SIM115 - kept open for the whole run
    weights = mmap.mmap(weights_file.fileno(), 4096)
    metrics = open("metrics.jsonl", "a")  # noqa: SIM115
    loss = 1.0
    for step in range(steps):
        wanted.put(step)
        loss = loss * 0.99 + drawn.get() * 0.01
        metrics.write(json.dumps({"step": step, "loss": loss}) + "\n")
        metrics.flush()
        with open("steps.csv", "a") as table:
            table.write(f"{step},{loss!r}\n")
        for place in (Path("state.json"), Path("/tmp/cache.json"), Path("/root/.state.json")):
            temporary = place.with_suffix(".tmp")
            temporary.write_text(json.dumps({"step": step, "loss": loss}))
            temporary.replace(place)
        with IMAGES_OWN.open("a") as notes:
            notes.write(f"step {step}\n")
        logger.info("step %d: %r", step, loss)
        weights[step % 4096] = step % 251
        with database:
            database.execute("INSERT INTO losses VALUES (?, ?)", (step, loss))
        if step % 20 == 0:
            epoch = Path(f"epoch{step // 20}")
            epoch.mkdir()
            (epoch / "checkpoint.json").write_text(json.dumps({"step": step, "loss": loss}))
            if step >= 60:
                old = Path(f"epoch{step // 20 - 3}")
                (old / "checkpoint.json").unlink()
                old.rmdir()
        print(f"step {step} loss {loss!r}", flush=True)
        time.sleep(delay)
    wanted.put(-1)
    worker.join()
    # What lies outside of the working directory is compared by what is left of it there.
    Path("outside.json").write_text(
        json.dumps([p.read_text() for p in (IMAGES_OWN, Path("/tmp/cache.json"), Path("/root/.state.json"))])
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
