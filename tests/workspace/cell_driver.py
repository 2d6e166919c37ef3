"""Runs as PID 1 of a cell: a real watch, and one worker that stands for the tree and does as it is told.

Requests come as JSON lines on stdin: {"ops": [...]} is passed to the worker, {"sync": true} answers the journal's
offset, {"deaf": true} ends the journal: what happens then is never read. Each gets one line as answer.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from criu_train.cell.watch import Watch


class Hands:
    """Does things to files. What is held stays open until the end."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.sizes: dict[int, int] = {}
        self.databases: dict[str, sqlite3.Connection] = {}

    def write(self, path: str, text: str) -> None:
        Path(path).write_text(text)

    def fill(self, path: str, letter: str, size: int) -> None:
        Path(path).write_text(letter * size)

    def append(self, path: str, text: str) -> None:
        with open(path, "a") as file:
            file.write(text)

    def patch(self, path: str, offset: int, text: str) -> None:
        with open(path, "r+") as file:
            file.seek(offset)
            file.write(text)

    def rewrite(self, path: str, text: str) -> None:
        Path(path + ".new").write_text(text)
        os.replace(path + ".new", path)

    def rename(self, path: str, other: str) -> None:
        os.rename(path, other)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path)

    def rmtree(self, path: str) -> None:
        shutil.rmtree(path)

    def symlink(self, path: str, target: str) -> None:
        os.symlink(target, path)

    def link(self, path: str, other: str) -> None:
        os.link(path, other)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    def fifo(self, path: str) -> None:
        os.mkfifo(path)

    def shell(self, directory: str, command: str) -> None:
        subprocess.run(["sh", "-c", command], cwd=directory, check=False)

    def sql(self, path: str, *statements: str) -> None:
        """On a connection in WAL mode that stays open."""
        if path not in self.databases:
            self.databases[path] = sqlite3.connect(path, isolation_level=None)
            self.databases[path].execute("PRAGMA journal_mode=WAL")
        for statement in statements:
            self.databases[path].execute(statement)

    def hold(self, path: str, text: str) -> None:
        """Open for appending, write, keep open."""
        file = open(path, "a")  # noqa: SIM115
        file.write(text)
        file.flush()
        self.held.append(file)

    def map(self, path: str, text: str) -> None:
        """Map shared and write through the map, keep it mapped; the descriptor is closed, as np.memmap does."""
        with open(path, "r+b") as file:
            view = mmap.mmap(file.fileno(), 0)
            self.sizes[id(view)] = os.open(path, os.O_RDONLY)
        self.held.append(view)
        self.poke(len(self.held) - 1, text)

    def unmap(self) -> None:
        """Let go of the newest map."""
        self.held.pop().close()

    def poke(self, number: int, text: str) -> None:
        view = self.held[number % len(self.held)]
        if isinstance(view, mmap.mmap):
            if os.fstat(self.sizes[id(view)]).st_size < len(view):
                return  # cut short meanwhile: SIGBUS
            data = text.encode()[: len(view)]
            view[: len(data)] = data
        else:
            view.write(text)
            view.flush()


def perform(hands: Hands, ops: list[list[Any]]) -> None:
    for name, *arguments in ops:
        if name in ("write", "append", "patch", "hold", "map", "rmtree") and Path(arguments[0]).is_fifo():
            continue  # would wait for the other end
        try:
            getattr(hands, name)(*arguments)
        except (OSError, ValueError, ZeroDivisionError):
            continue


def worker(requests: int, answers: int) -> None:
    hands = Hands()
    with os.fdopen(requests) as lines:
        for line in lines:
            perform(hands, json.loads(line))
            os.write(answers, b"done\n")


def main(settings: dict[str, Any]) -> None:
    watch = Watch(settings["journal"], settings["roots"], exclude=settings["exclude"])
    watch.arm()
    to_worker, from_worker = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(to_worker[1])
        os.chdir(settings["roots"][0])
        worker(to_worker[0], from_worker[1])
        os._exit(0)
    inner = Path("/proc/self/ns/pid").readlink()
    print(
        json.dumps({"available": watch.available, "reason": watch.reason, "worker": pid, "ns": str(inner)}), flush=True
    )
    pending, deaf = b"", False
    while True:
        ready, _, _ = select.select([0] if deaf else [0, watch], [], [], 0.2)
        if not deaf:
            watch.heartbeat()
        if watch in ready:
            watch.handle()
        if 0 not in ready:
            continue
        data = os.read(0, 1 << 20)
        if not data:
            return
        pending += data
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            request = json.loads(line)
            if "ops" in request:
                os.write(to_worker[1], json.dumps(request["ops"]).encode() + b"\n")
                os.read(from_worker[0], 64)
                print("{}", flush=True)
            elif "deaf" in request:
                deaf = True
                print("{}", flush=True)
            else:
                print(json.dumps({"offset": watch.sync()}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
