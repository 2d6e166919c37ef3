"""A training that writes files in every way trainings do, one step after the other, the same bytes in every run.

Everything it leaves depends on the seed and the number of steps alone: no clock, no PID, no address. A step that was
done twice, or not at all, shows in at least one of the files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import logging.handlers
import os
import random
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
from rest import rest

FEATURES = 64


class Rotated:
    """A log of small files: ``train.log``, ``train.log.1``, …, without times in its lines."""

    def __init__(self) -> None:
        handler = logging.handlers.RotatingFileHandler("train.log", maxBytes=1500, backupCount=3)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.logger = logging.getLogger("train")
        self.logger.addHandler(handler)
        self.logger.setLevel(logging.INFO)

    def write(self, step: int, loss: float) -> None:
        self.logger.info("step %d reached a loss of %r", step, loss)


class Header:
    """A counter that is rewritten in place at the start of a file kept open ``r+b``."""

    def __init__(self) -> None:
        Path("header.bin").write_bytes(b"\0" * 4096)
        self.file = open("header.bin", "r+b")  # noqa: SIM115 - kept open for the whole run

    def write(self, step: int, loss: float) -> None:
        self.file.seek(0)
        self.file.write(f"{step:016d} {loss!r:<32}".encode())
        self.file.flush()


class Database:
    """sqlite in WAL mode: one transaction a step, and now and then a deletion."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect("history.sqlite")
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA wal_autocheckpoint=40")
        self.connection.execute("CREATE TABLE losses (step INTEGER PRIMARY KEY, loss REAL, note TEXT)")
        self.connection.commit()

    def write(self, step: int, loss: float) -> None:
        with self.connection:
            self.connection.execute("INSERT INTO losses VALUES (?, ?, ?)", (step, loss, "x" * (step % 97)))
            if step % 10 == 9:
                self.connection.execute("DELETE FROM losses WHERE step = ?", (step - 5,))

    def close(self) -> None:
        self.connection.close()


class Scratch:
    """Temporary files that are deleted again: by name after a few steps, or at once while they are read on."""

    def __init__(self) -> None:
        Path("scratch").mkdir()
        self.named: list[str] = []
        self.nameless = tempfile.TemporaryFile(dir="scratch")  # noqa: SIM115 - kept open for the whole run
        self.elsewhere = tempfile.TemporaryFile()  # noqa: SIM115

    def write(self, step: int, rng: np.random.Generator) -> str:
        """Return the digest of everything the nameless files hold, so that their content counts as well."""
        block = rng.bytes(512)
        descriptor, name = tempfile.mkstemp(dir="scratch")
        os.write(descriptor, block)
        os.close(descriptor)
        self.named.append(name)
        if len(self.named) > 4:
            Path(self.named.pop(0)).unlink()
        digest = hashlib.sha256()
        for file in (self.nameless, self.elsewhere):
            file.seek(0, os.SEEK_END)
            file.write(block[:32])
            file.flush()
            file.seek(0)
            digest.update(file.read())
        return digest.hexdigest()[:16]

    def close(self) -> None:
        for name in self.named:
            Path(name).unlink()


def replace(path: str, text: str) -> None:
    """Rewrite a file the careful way: a temporary one beside it, renamed over it."""
    temporary = Path(path + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def extend_history(step: int, loss: float) -> None:
    """Read a JSON list, append to it, write it again in full."""
    path = Path("history.json")
    history = json.loads(path.read_text()) if path.exists() else []
    history.append([step, loss])
    path.write_text(json.dumps(history))


def checkpoint(step: int, weights: np.ndarray) -> None:
    """Write a checkpoint, point ``latest`` at it, keep the newest three."""
    path = Path("checkpoints") / f"step-{step:06d}.npy"
    np.save(path, weights)
    pointer = Path("latest.tmp")
    pointer.symlink_to(path)
    pointer.replace("latest")
    for old in sorted(Path("checkpoints").glob("step-*.npy"))[:-3]:
        old.unlink()


def train(steps: int, delay: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    random.seed(seed)
    truth = rng.normal(size=FEATURES)
    weights = np.zeros(FEATURES)

    Path("checkpoints").mkdir()
    np.zeros(FEATURES).tofile("moments.dat")
    moments = np.memmap("moments.dat", dtype=np.float64, mode="r+", shape=(FEATURES,))
    rotated, header, database, scratch = Rotated(), Header(), Database(), Scratch()
    with open("metrics.jsonl", "a") as metrics, open("table.csv", "w") as table:
        table.write("step,loss,luck\n")
        for step in range(steps):
            batch = rng.normal(size=(16, FEATURES))
            errors = batch @ weights - batch @ truth + rng.normal(scale=0.1, size=16)
            moments[:] = 0.9 * moments + batch.T @ errors / 16
            weights -= 0.02 * moments
            loss = float(errors @ errors / 16)
            luck = random.random()

            metrics.write(json.dumps({"step": step, "loss": loss, "scratch": scratch.write(step, rng)}) + "\n")
            metrics.flush()
            table.write(f"{step},{loss!r},{luck!r}\n")
            table.flush()
            with open("appended.csv", "a") as appended:
                appended.write(f"{step},{loss!r}\n")
            replace("state.json", json.dumps({"step": step, "loss": loss, "luck": luck}))
            extend_history(step, loss)
            header.write(step, loss)
            rotated.write(step, loss)
            database.write(step, loss)
            if step % 10 == 0:
                checkpoint(step, weights)
            if step % 15 == 0:
                epoch = Path(f"epoch{step // 15}")
                epoch.mkdir()
                (epoch / "summary.txt").write_text(f"{step} {loss!r}\n")
            print(f"step {step} loss {loss!r}", flush=True)
            rest(delay)
    scratch.close()
    database.close()
    np.save("weights.npy", weights)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--delay", type=float, default=0.04, help="seconds of rest after each step")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    train(arguments.steps, arguments.delay, arguments.seed)
