"""multiprocessing as trainings use it: a pool, a Manager, shared memory, a lock and a semaphore; no PyTorch.

The pool is made anew every few steps, so that processes are forked (or spawned) after a restore too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import time
from multiprocessing.context import BaseContext
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from rest import rest

WORKERS = 2
SHAPE = (WORKERS, 32)

shared: dict[str, Any] = {}


def set_up(name: str, lock: Any, gate: Any, counts: Any) -> None:
    """Runs first in every worker: attaches to what the trainer shares."""
    shared.update(memory=SharedMemory(name), lock=lock, gate=gate, counts=counts)


def gradient(task: tuple[int, int, list[float]]) -> float:
    """Write this worker's part of the gradient into shared memory; count the call in the manager's dict."""
    part, step, weights = task
    rng = np.random.default_rng((step, part))
    batch = rng.normal(size=(8, SHAPE[1]))
    errors = batch @ np.array(weights) - batch.sum(axis=1)
    with shared["gate"]:
        rows: np.ndarray = np.ndarray(SHAPE, dtype=np.float64, buffer=shared["memory"].buf)
        rows[part] = batch.T @ errors / 8
    with shared["lock"]:
        shared["counts"][part] = shared["counts"].get(part, 0) + 1
        time.sleep(0.01)  # so that many a dump finds the lock held
    return float(errors @ errors)


def train(context: BaseContext, steps: int, delay: float, renew: int) -> None:
    memory = SharedMemory(create=True, size=8 * SHAPE[0] * SHAPE[1])
    rows: np.ndarray = np.ndarray(SHAPE, dtype=np.float64, buffer=memory.buf)
    weights = np.zeros(SHAPE[1])
    with context.Manager() as manager, open("metrics.jsonl", "a") as metrics:
        counts = manager.dict()
        sharing = (memory.name, context.Lock(), context.BoundedSemaphore(WORKERS), counts)
        pool = context.Pool(WORKERS, set_up, sharing)
        for step in range(steps):
            losses = pool.map(gradient, [(part, step, weights.tolist()) for part in range(WORKERS)], chunksize=1)
            weights -= 0.1 * rows.sum(axis=0)
            record = {"step": step, "losses": losses, "counts": sorted(counts.items())}
            metrics.write(json.dumps(record) + "\n")
            metrics.flush()
            print(f"step {step}", flush=True)
            if step % renew == renew - 1:
                pool.close()
                pool.join()
                pool = context.Pool(WORKERS, set_up, sharing)
            rest(delay)
        pool.close()
        pool.join()
    np.save("weights.npy", weights)
    del rows
    memory.close()
    memory.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start-method", choices=["fork", "spawn", "forkserver"], default="fork")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds of rest after each step")
    parser.add_argument("--renew", type=int, default=20, metavar="STEPS", help="make a new pool after so many steps")
    arguments = parser.parse_args()
    train(mp.get_context(arguments.start_method), arguments.steps, arguments.delay, arguments.renew)
