"""TensorBoard runs beside the training, as a child of it, and is asked in the end what it has seen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request

from progress import report
from softmax import Softmax
from torch.utils.tensorboard import SummaryWriter


def asked(url: str) -> object:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


steps = int(sys.argv[1])
command = [sys.executable, "-m", "tensorboard.main", "--logdir", "runs", "--port", "0", "--reload_interval", "1"]
board = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
url = next(match[1] for line in board.stderr if (match := re.search(r"at (http://\S+/) ", line)))
model = Softmax()
with SummaryWriter("runs/softmax") as writer:
    for step in range(steps):
        loss = model.step()
        writer.add_scalar("loss", loss, step)
        report(step, loss=loss)
scalars = f"{url}data/plugin/scalars/scalars?run=softmax&tag=loss"
for _ in range(100):
    if "softmax" in asked(f"{url}data/runs") and len(asked(scalars)) == steps:
        break
    time.sleep(0.2)
with open("seen.json", "w") as file:
    json.dump([[step, loss] for _, step, loss in asked(scalars)], file)
board.terminate()
print("the dashboard ended with", board.wait())
