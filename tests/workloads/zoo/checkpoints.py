"""np.savez checkpoints put in place by os.replace: the newest four kept, a link to the latest, the best one apart."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from progress import report
from softmax import Softmax


def save(path: Path, **arrays: np.ndarray) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        np.savez(file, **arrays)
        os.fsync(descriptor)
    os.replace(name, path)


model, best = Softmax(), 0.0
for step in range(int(sys.argv[1])):
    loss = model.step()
    accuracy = model.accuracy()
    directory = Path("checkpoints") / f"step-{step:05d}"
    directory.mkdir(parents=True)
    save(directory / "weights.npz", weights=model.weights)
    (directory / "rng.json").write_text(json.dumps(model.rng.bit_generator.state))
    os.symlink(directory.name, "checkpoints/next")
    os.replace("checkpoints/next", "checkpoints/latest")
    if accuracy > best:
        best = accuracy
        shutil.copytree(directory, "best.new")
        shutil.rmtree("best", ignore_errors=True)
        os.rename("best.new", "best")
    for old in sorted(Path("checkpoints").glob("step-*"))[:-4]:
        shutil.rmtree(old)
    print(f"step {step}: {accuracy:.4f}, best {best:.4f}")
    report(step, loss=loss, accuracy=accuracy)
with np.load("checkpoints/latest/weights.npz") as latest:
    print("norm", float(np.linalg.norm(latest["weights"])))
