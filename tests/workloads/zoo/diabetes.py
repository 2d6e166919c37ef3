"""Gradient descent on the diabetes data for one target of experiment.mk."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from progress import report

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", choices=["linear", "ridge"])
parser.add_argument("steps", type=int)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--log", help="the model whose progress counts")
arguments = parser.parse_args()

rows = np.loadtxt("diabetes.txt")
features, target = rows[:, :-1] / rows[:, :-1].std(axis=0), rows[:, -1] - rows[:, -1].mean()
weights, penalty = np.zeros(features.shape[1]), 0.1 if arguments.model == "ridge" else 0.0
for step in range(arguments.steps):
    errors = features @ weights - target
    weights -= 0.1 * (features.T @ errors / len(target) + penalty * weights)
    loss = float(errors @ errors / len(target))
    with open(arguments.out / "log.csv", "a") as log:
        log.write(f"{step},{loss!r}\n")
    if arguments.log:
        report(step, loss=loss)
    elif not Path("../hurry").exists():
        time.sleep(float(os.environ.get("ZOO_REST", "0")))
np.savetxt(arguments.out / "weights.txt", weights)
