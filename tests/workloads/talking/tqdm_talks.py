"""tqdm's bar, as trainings use it."""

import time

from tqdm import tqdm

for epoch in range(3):
    with tqdm(range(20), desc=f"Epoch {epoch}", mininterval=0) as bar:
        for step in bar:
            bar.set_postfix(loss=f"{1 / (1 + epoch * 20 + step):.4f}")
            time.sleep(0.01)
