"""Parquet by pyarrow: one row group a step through a writer that is open for the whole run, read back at the end."""

from __future__ import annotations

import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from progress import report
from softmax import Softmax

model = Softmax()
schema = pa.schema([("step", pa.int32()), ("loss", pa.float64()), ("weight", pa.list_(pa.float32()))])
with pq.ParquetWriter("history.parquet", schema, compression="zstd") as writer:
    for step in range(int(sys.argv[1])):
        losses = [model.step() for _ in range(4)]
        weights = [model.weights[:, digit].astype("f4") for digit in range(4)]
        writer.write_table(pa.table({"step": [step] * 4, "loss": losses, "weight": weights}, schema))
        report(step, loss=losses[-1])
table = pq.read_table("history.parquet", columns=["step", "loss"])
print(table.num_rows, "rows, mean loss", pc.mean(table["loss"]).as_py())
