"""A child watches a directory by inotify, evaluates each checkpoint that the training puts there, and thins them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from inotify_simple import INotify, flags
from progress import report
from softmax import Softmax

CHECKPOINTS, DONE = Path("checkpoints"), "last.done"


def watch(pause: float) -> None:
    model = Softmax()
    inotify = INotify()
    inotify.add_watch(CHECKPOINTS, flags.MOVED_TO)
    print("watching", flush=True)
    with open("evaluations.jsonl", "w", buffering=1) as out:
        while True:
            for event in inotify.read():
                if event.name == DONE:
                    return
                model.weights = np.load(CHECKPOINTS / event.name)
                out.write(json.dumps({"name": event.name, "accuracy": model.accuracy()}) + "\n")
                if not event.name.endswith("0.npy"):
                    (CHECKPOINTS / event.name).unlink()
                if not Path("../hurry").exists():
                    time.sleep(pause * float(os.environ.get("ZOO_REST", "0")))


def main(steps: int, pause: str) -> None:
    CHECKPOINTS.mkdir()
    with subprocess.Popen([sys.executable, __file__, "watch", pause], stdout=subprocess.PIPE, text=True) as watcher:
        watcher.stdout.readline()
        model = Softmax()
        for step in range(steps):
            loss = model.step()
            report(step, loss=loss)
            with open("new.tmp", "wb") as file:
                np.save(file, model.weights)
            Path("new.tmp").rename(CHECKPOINTS / f"step-{step:04d}.npy")
        Path("new.tmp").touch()
        Path("new.tmp").rename(CHECKPOINTS / DONE)
        watcher.wait()
    seen = Path("evaluations.jsonl").read_text().splitlines()
    print("the watcher ended with", watcher.returncode, "after", len(seen), "checkpoints")


if __name__ == "__main__":
    watch(float(sys.argv[2])) if sys.argv[1] == "watch" else main(int(sys.argv[1]), sys.argv[2])
