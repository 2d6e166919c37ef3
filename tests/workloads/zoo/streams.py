"""Compressed streams left open over the whole run: gzip, zstd and xz, a text line and the raw weights a step."""

from __future__ import annotations

import gzip
import json
import lzma
import sys

from backports import zstd
from progress import report
from softmax import Softmax

model = Softmax()
with (
    open("log.jsonl.gz", "wb") as raw,
    gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as lines,
    zstd.open("weights.zst", "wb") as weights,
    lzma.open("gradients.xz", "wb", preset=1) as gradients,
):
    for step in range(int(sys.argv[1])):
        loss, gradient = model.gradient()
        model.weights -= 0.5 * gradient
        lines.write(json.dumps({"step": step, "loss": loss}).encode() + b"\n")
        weights.write(model.weights.astype("f4").tobytes())
        gradients.write(gradient.astype("f4").tobytes())
        if step % 25 == 24:
            lines.flush()
        report(step, loss=loss)
with gzip.open("log.jsonl.gz", "rt") as log, zstd.open("weights.zst") as stored:
    print(len(log.readlines()), "lines,", len(stored.read()), "bytes of weights")
