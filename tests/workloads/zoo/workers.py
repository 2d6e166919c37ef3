"""Evolution strategies: subprocesses evaluate candidates, asked and answering in JSON lines over pipes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
from progress import report

WORKER = """
import json, sys
import numpy as np
from sklearn.datasets import load_wine
x, y = load_wine(return_X_y=True)
x = (x - x.mean(axis=0)) / x.std(axis=0)
for line in sys.stdin:
    asked = json.loads(line)
    logits = x @ np.array(asked["weights"]).reshape(13, 3)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    print(json.dumps({"id": asked["id"], "loss": -float(logits[np.arange(len(y)), y].mean())}), flush=True)
"""

steps, population = int(sys.argv[1]), 12
workers = [
    subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(3)
]
rng = np.random.default_rng(5)
mean, spread = np.zeros(39), 0.3
for step in range(steps):
    candidates = mean + spread * rng.normal(size=(population, len(mean)))
    for number, candidate in enumerate(candidates):
        stdin = workers[number % len(workers)].stdin
        stdin.write(json.dumps({"id": number, "weights": candidate.tolist()}) + "\n")
        stdin.flush()
    losses = np.zeros(population)
    for number in range(population):
        answer = json.loads(workers[number % len(workers)].stdout.readline())
        losses[answer["id"]] = answer["loss"]
    mean = candidates[np.argsort(losses)[:4]].mean(axis=0)
    spread *= 0.99
    print(f"generation {step}: {losses.min():.6f}")
    report(step, loss=float(losses.min()))
for worker in workers:
    worker.stdin.close()
    print("worker ended with", worker.wait())
np.savetxt("weights.txt", mean)
