"""sqlite in WAL mode: the training writes a row a step and reads them through a second connection, kept open too."""

from __future__ import annotations

import sqlite3
import sys

import numpy as np
from progress import report
from softmax import Softmax

model = Softmax()
writer = sqlite3.connect("runs.sqlite")
writer.execute("PRAGMA journal_mode=WAL")
writer.execute("CREATE TABLE losses (step INTEGER PRIMARY KEY, loss REAL, weights BLOB)")
writer.commit()
reader = sqlite3.connect("file:runs.sqlite?mode=ro", uri=True)
for step in range(int(sys.argv[1])):
    loss = model.step()
    with writer:
        writer.execute("INSERT INTO losses VALUES (?, ?, ?)", (step, loss, model.weights.astype("f4").tobytes()))
        writer.execute("DELETE FROM losses WHERE step = ?", (step - 50,))
    count, best = reader.execute("SELECT count(*), min(loss) FROM losses").fetchone()
    print(f"step {step}: {count} rows, best {best:.4f}")
    report(step, loss=loss, best=best)
np.save("weights.npy", model.weights)
reader.close()
writer.close()
