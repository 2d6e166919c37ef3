"""HDF5 by h5py: weights and losses appended to growing datasets, flushed each step, the file open throughout."""

from __future__ import annotations

import sys

import h5py
from progress import report
from softmax import Softmax

model = Softmax()
with h5py.File("history.h5", "w", libver="latest") as file:
    file.attrs["model"] = "softmax regression"
    losses = file.create_dataset("loss", (0,), maxshape=(None,), chunks=(64,), dtype="f8")
    shape = {"shape": (0, 64, 10), "maxshape": (None, 64, 10), "chunks": (1, 64, 10)}
    weights = file.create_dataset("weights", **shape, dtype="f8", compression="gzip")
    file.swmr_mode = True  # others may read along
    for step in range(int(sys.argv[1])):
        loss = model.step()
        for dataset, value in ((losses, loss), (weights, model.weights)):
            dataset.resize(step + 1, axis=0)
            dataset[step] = value
            dataset.flush()
        report(step, loss=loss)
with h5py.File("history.h5") as file:
    print("rows", len(file["loss"]), "first", file["loss"][0], "last", file["loss"][-1])
