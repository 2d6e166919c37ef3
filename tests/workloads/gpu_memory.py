"""A training on the GPU that libcuda.c pretends there is: a line a step, a forked helper that writes lines as well."""

from __future__ import annotations

import ctypes
import os
import sys

from rest import rest

cuda = ctypes.CDLL("libcuda.so.1")
cuda.fake_step.restype = ctypes.c_ulonglong
cuda.fake_step.argtypes = [ctypes.c_ulonglong]
assert cuda.cuInit(0) == 0
steps = int(sys.argv[1])
read, write = os.pipe()
if (child := os.fork()) == 0:
    with open(read, "rb", buffering=0) as lines, open("helper.txt", "wb", buffering=0) as copy:
        os.close(write)
        while line := lines.read(64):
            copy.write(line)
    sys.exit(0)
os.close(read)
with open("metrics.jsonl", "w", buffering=1) as metrics:
    for step in range(steps):
        metrics.write(f'{{"step": {step}, "sum": {cuda.fake_step(step)}}}\n')
        os.write(write, b"%d\n" % step)
        rest(float(os.environ.get("REST", "0")))
os.close(write)
assert os.waitpid(child, 0)[1] == 0
