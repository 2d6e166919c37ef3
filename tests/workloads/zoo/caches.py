"""A data set mapped read-only in two processes, shelves and pickles as caches, rewritten while they are in use."""

from __future__ import annotations

import mmap
import multiprocessing
import pickle
import shelve
import sys
from pathlib import Path

import numpy as np
from progress import report
from softmax import Softmax


def statistics(path: str, asked: multiprocessing.SimpleQueue, answers: multiprocessing.SimpleQueue) -> None:
    """Answers what the mean image of a digit is, from the mapped file."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        rows = np.frombuffer(mapped, dtype="f8").reshape(-1, 65)
        while (digit := asked.get()) is not None:
            answers.put(rows[rows[:, -1] == digit, :-1].mean(axis=0))
        del rows


def main(steps: int) -> None:
    model = Softmax()
    np.column_stack([model.images, model.labels]).tofile("data.bin")
    asked, answers = multiprocessing.SimpleQueue(), multiprocessing.SimpleQueue()
    helper = multiprocessing.Process(target=statistics, args=("data.bin", asked, answers))
    helper.start()
    with open("data.bin", "rb") as file:
        rows = np.frombuffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), dtype="f8").reshape(-1, 65)
    model.images = rows[:, :-1]
    for step in range(steps):
        cache = Path("means.pickle")
        means = pickle.loads(cache.read_bytes()) if cache.exists() else {}
        digit = int(model.rng.integers(0, 10))
        if digit not in means:
            asked.put(digit)
            means[digit] = answers.get()
            cache.write_bytes(pickle.dumps(means))
        with shelve.open("seen") as seen:
            seen[str(digit)] = seen.get(str(digit), 0) + 1
        loss = model.step()
        far = float(np.linalg.norm(means[digit] - model.weights[:, digit]))
        report(step, loss=loss, distance=far)
    asked.put(None)
    helper.join()
    with shelve.open("seen") as seen:
        print(dict(sorted(seen.items())), "helper ended with", helper.exitcode)
    for path in Path().glob("seen*"):  # pages of a database keep what was in memory before
        path.unlink()


if __name__ == "__main__":
    main(int(sys.argv[1]))
