"""A training that holds what was deleted: a file with its directory, a pipe, another directory, a semaphore.

All of it is used in every step, and what the deleted file holds in the end is written to ``held.txt``.
"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import os
import random
from pathlib import Path

from rest import rest


def deleted_directory() -> int:
    Path("gone").mkdir()
    descriptor = os.open("gone", os.O_RDONLY | os.O_DIRECTORY)
    Path("gone").rmdir()
    return descriptor


def deleted_pipe() -> int:
    os.mkfifo("pipe")
    descriptor = os.open("pipe", os.O_RDWR)
    Path("pipe").unlink()
    return descriptor


def train(options: argparse.Namespace) -> None:
    semaphore = multiprocessing.get_context("fork").Semaphore(1)  # deleted at once, and mapped
    directory, pipe = deleted_directory(), deleted_pipe()
    memory = mmap.mmap(-1, options.memory << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, len(memory), 1 << 20):
        memory[at : at + (1 << 20)] = random.Random(at).randbytes(1 << 20)
    Path("room").mkdir()
    with open("metrics.jsonl", "a") as metrics, open("room/held", "w+") as held:
        Path("room/held").unlink()
        Path("room").rmdir()
        for step in range(options.steps):
            with semaphore:
                os.write(pipe, bytes([step % 256]))
                told = {"step": step, "piped": os.read(pipe, 1)[0], "links": os.fstat(directory).st_nlink}
            held.write(f"{step}\n")
            held.flush()
            metrics.write(json.dumps(told) + "\n")
            metrics.flush()
            rest(options.delay)
        held.seek(0)
        Path("held.txt").write_text(held.read())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds of rest after each step")
    parser.add_argument("--memory", type=int, default=300, metavar="MIB", help="hold this much, so that restores last")
    train(parser.parse_args())
