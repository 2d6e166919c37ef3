"""Files without a name: a replay buffer in a TemporaryFile, a spooled one, one unlinked while mapped, and a memfd."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile

import numpy as np
from progress import report
from softmax import Softmax

ROW = 64 + 1
model = Softmax()
replay = tempfile.TemporaryFile(dir=".")  # noqa: SIM115 - lives as long as the run
spooled = tempfile.SpooledTemporaryFile(max_size=20_000)  # noqa: SIM115 - goes over to the disk under way
memory = os.fdopen(os.memfd_create("losses"), "w+b")
with tempfile.NamedTemporaryFile(dir=".") as named:
    named.truncate(8 * 4096)
    running = np.frombuffer(mmap.mmap(named.fileno(), 0), dtype="f8")
for step in range(int(sys.argv[1])):
    fresh = model.rng.integers(0, len(model.images), 32)
    replay.seek(0, os.SEEK_END)
    replay.write(np.column_stack([model.images[fresh], model.labels[fresh]]).tobytes())
    size = replay.tell() // (8 * ROW)
    drawn = []
    for number in model.rng.integers(0, size, 64):
        replay.seek(int(number) * 8 * ROW)
        drawn.append(np.frombuffer(replay.read(8 * ROW)))
    rows = np.array(drawn)
    loss, gradient = model.loss(rows[:, :-1], rows[:, -1].astype(int))
    model.weights -= 0.3 * gradient
    running[step] = loss
    spooled.write(gradient.astype("f4").tobytes()[:512])
    memory.write(b"%r\n" % loss)
    report(step, loss=loss, smooth=float(running[max(0, step - 9) : step + 1].mean()))
spooled.seek(0)
memory.seek(0)
print("spooled", len(spooled.read()), "bytes;", len(memory.readlines()), "lines in memory")
np.save("running.npy", running)
np.save("weights.npy", model.weights)
