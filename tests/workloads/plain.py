"""The smallest training: logistic regression by hand, one line of metrics a step, quick to start.

What it does besides is chosen by options. While a file named ``undumpable`` lies in the directory given by
``--control`` it holds a descriptor that CRIU can't dump, and lets go of it when the file is gone.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import mmap
import os
import random
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from rest import rest


def serve_sums(connection: socket.socket) -> None:
    """The other end of a loopback connection: adds up what it gets, and answers with the total."""
    total = 0
    while request := connection.recv(8):
        total += struct.unpack("!Q", request)[0]
        connection.sendall(struct.pack("!Q", total))
    os._exit(0)


def loopback_pair() -> socket.socket:
    """A TCP connection to a child that adds up; the same numbers give the same totals in every run."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    if os.fork() == 0:
        client.close()
        serve_sums(server)
    server.close()
    return client


def helper_through_pipes() -> Callable[[int], int]:
    """A child that squares numbers; it lives as long as the training."""
    to_child, to_parent = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(to_child[1])
        while request := os.read(to_child[0], 8):
            os.write(to_parent[1], struct.pack("!Q", struct.unpack("!Q", request)[0] ** 2))
        os._exit(0)
    os.close(to_child[0])

    def square(number: int) -> int:
        os.write(to_child[1], struct.pack("!Q", number))
        return int(struct.unpack("!Q", os.read(to_parent[0], 8))[0])

    return square


def incompressible(mebibytes: int) -> mmap.mmap:
    """Private memory full of random bytes, so that a dump has something to write."""
    memory = mmap.mmap(-1, mebibytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block = random.Random(0).randbytes(1 << 20)
    for at in range(0, len(memory), len(block)):
        memory[at : at + len(block)] = block
    return memory


def map_file(path: Path) -> mmap.mmap:
    """A file mapped read-only, as libraries are."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Undumpable:
    """A descriptor of a kind that CRIU doesn't know, held only while the control file lies there."""

    SYS_USERFAULTFD = 323  # x86-64

    def __init__(self, control: Path) -> None:
        self.wish = control / "undumpable"
        self.held: int | None = None

    def follow(self) -> None:
        if self.wish.exists() and self.held is None:
            self.held = ctypes.CDLL(None, use_errno=True).syscall(self.SYS_USERFAULTFD, os.O_CLOEXEC)
            if self.held < 0:
                raise OSError(ctypes.get_errno(), "userfaultfd")
        elif self.held is not None and not self.wish.exists():
            os.close(self.held)
            self.held = None


def train(options: argparse.Namespace) -> None:
    rng = random.Random(options.seed)
    weights = [0.0] * 8
    peer = loopback_pair() if options.loopback else None
    square = helper_through_pipes() if options.child else None
    memory = incompressible(options.memory) if options.memory else None  # after the forks: theirs is not dumped too
    listener = socket.create_server(("127.0.0.1", 0)) if options.listen else None
    mapped = map_file(options.mapped) if options.mapped else None
    undumpable = Undumpable(options.control) if options.control else None
    with open("metrics.jsonl", "a") as metrics:
        for step in range(options.steps):
            features = [rng.gauss(0, 1) for _ in weights]
            target = float(sum(features) > 0)
            guess = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weights, features, strict=True))))
            weights = [w + 0.1 * (target - guess) * x for w, x in zip(weights, features, strict=True)]
            record: dict[str, object] = {"step": step, "loss": (target - guess) ** 2}
            if peer is not None:
                peer.sendall(struct.pack("!Q", step))
                record["total"] = struct.unpack("!Q", peer.recv(8))[0]
            if square is not None:
                record["square"] = square(step)
            if memory is not None:
                memory[(step * 4096) % len(memory)] = step % 256
            if mapped is not None:
                record["mapped"] = mapped[step % len(mapped)]
            if undumpable is not None:
                undumpable.follow()
            metrics.write(json.dumps(record) + "\n")
            metrics.flush()
            if not options.quiet:
                print(f"step {step} loss {record['loss']!r}", flush=True)
            if step == options.crash_at:
                os.kill(os.getpid(), signal.SIGSEGV)
            rest(options.delay)
    if listener is not None:
        listener.close()
    Path("weights.json").write_text(json.dumps(weights))
    sys.exit(options.exit_code)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds of rest after each step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", type=int, default=0, metavar="MIB", help="hold this much incompressible memory")
    parser.add_argument("--loopback", action="store_true", help="talk to a child over TCP in every step")
    parser.add_argument("--child", action="store_true", help="talk to a child over pipes in every step")
    parser.add_argument("--listen", action="store_true", help="keep a listening TCP socket")
    parser.add_argument("--mapped", type=Path, metavar="FILE", help="map this file and read it in every step")
    parser.add_argument("--control", type=Path, metavar="DIR", help="where control files appear")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    parser.add_argument("--crash-at", type=int, default=-1, metavar="STEP", help="die by SIGSEGV after this step")
    parser.add_argument("--exit-code", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    train(chosen)
