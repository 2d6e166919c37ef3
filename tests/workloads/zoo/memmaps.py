"""np.memmap both ways: a data set written once and then mapped read-only, moments of the optimizer mapped writable."""

from __future__ import annotations

import sys

import numpy as np
from progress import report
from softmax import Softmax

model = Softmax()
np.save("images.npy", np.tile(model.images, (4, 1)))
model.images = np.load("images.npy", mmap_mode="r")
model.labels = np.tile(model.labels, 4)
moments = np.memmap("moments.dat", dtype="f8", mode="w+", shape=(2, *model.weights.shape))
weights = np.lib.format.open_memmap("weights.npy", mode="w+", dtype="f8", shape=model.weights.shape)
for step in range(int(sys.argv[1])):
    loss, gradient = model.gradient()
    moments[0] += 0.1 * (gradient - moments[0])
    moments[1] += 0.01 * (gradient**2 - moments[1])
    weights -= 0.01 * moments[0] / (np.sqrt(moments[1]) + 1e-6)
    model.weights = weights
    if step % 10 == 9:
        moments.flush()
    report(step, loss=loss)
print(f"accuracy {model.accuracy():.4f}")
