"""LMDB, memory-mapped, as a cache of features: filled in the first pass, read and updated in the ones after it."""

from __future__ import annotations

import sys

import lmdb
import numpy as np
from progress import report
from softmax import Softmax

model = Softmax()
hits = 0
environment = lmdb.open("cache", map_size=1 << 26, writemap=True)
for step in range(int(sys.argv[1])):
    chosen = model.rng.integers(0, len(model.images), 64)
    rows = []
    with environment.begin(write=True) as transaction:
        for number in chosen:
            key = b"%06d" % number
            if (known := transaction.get(key)) is None:
                image = model.images[number]
                known = np.where(image > 0.5, 1.0, image).tobytes()  # the costly part
                transaction.put(key, known)
            else:
                hits += 1
            rows.append(np.frombuffer(known))
        transaction.put(b"steps", b"%d" % (step + 1))
    loss, gradient = model.loss(np.array(rows), model.labels[chosen])
    model.weights -= 0.5 * gradient
    report(step, loss=loss, hits=hits)
with environment.begin() as transaction:
    print(transaction.get(b"steps").decode(), "steps,", transaction.stat()["entries"], "entries,", hits, "hits")
environment.close()
np.save("weights.npy", model.weights)
