"""Memory full of bytes that occur once; every step renews a piece of it and logs what was there before.

It rests after each step. Files beside its working directory change that: while there is one named ``hold`` it stands
still, with one named ``hurry`` it doesn't rest.
"""

from __future__ import annotations

import argparse
import json
import mmap
import random
import struct
import time
import zlib
from pathlib import Path

from plain import loopback_pair
from rest import rest

PIECE = 512 << 10


def noise(number: int) -> bytes:
    """A piece of its own for every number, the same in every run."""
    return random.Random(number).randbytes(PIECE)


def train(options: argparse.Namespace) -> None:
    peer = loopback_pair() if options.loopback else None
    memory = mmap.mmap(-1, options.memory << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pieces = len(memory) // PIECE
    for number in range(pieces):
        memory[number * PIECE : (number + 1) * PIECE] = noise(number)
    Path("noise.bin").write_bytes(noise(0)[:10_000])
    Path("pieces.json").write_text(json.dumps([number * PIECE for number in range(1000)]))
    with open("metrics.jsonl", "a") as metrics:
        for step in range(options.steps):
            begin = step % pieces * PIECE
            record = {"step": step, "was": zlib.crc32(memory[begin : begin + PIECE])}
            memory[begin : begin + PIECE] = noise(pieces + step)
            if peer is not None:
                peer.sendall(struct.pack("!Q", step))
                record["total"] = struct.unpack("!Q", peer.recv(8))[0]
            metrics.write(json.dumps(record) + "\n")
            metrics.flush()
            print(f"step {step} was {record['was']}", flush=True)
            while Path("../hold").exists():
                time.sleep(0.01)
            rest(options.delay)
    Path("weights.json").write_text(json.dumps({"memory": zlib.crc32(memory)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds of rest after each step")
    parser.add_argument("--memory", type=int, default=32, metavar="MIB", help="hold this much memory")
    parser.add_argument("--loopback", action="store_true", help="talk to a child over TCP in every step")
    train(parser.parse_args())
