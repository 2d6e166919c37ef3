"""tqdm's progress bars: one of the epochs, one of the batches that comes anew each epoch; lines above them."""

from __future__ import annotations

import sys

import numpy as np
from progress import report
from softmax import Softmax
from tqdm import tqdm

EPOCH = 20
LOOK = {"bar_format": "{desc}: {n_fmt}/{total_fmt} |{bar}|{postfix}", "mininterval": 0, "miniters": 1}  # no times

model = Softmax()
for epoch in tqdm(range(int(sys.argv[1]) // EPOCH), desc="epochs", **LOOK):
    with tqdm(total=EPOCH, desc=f"epoch {epoch}", leave=False, **LOOK) as bar:
        for number in range(EPOCH):
            loss = model.step()
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            report(EPOCH * epoch + number, loss=loss)
    tqdm.write(f"epoch {epoch}: accuracy {model.accuracy():.4f}")
np.save("weights.npy", model.weights)
