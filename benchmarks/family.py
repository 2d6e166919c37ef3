"""So many processes (the first forks the others), each with 32 MiB that they share copy-on-write and 8 of its own.

Usage: family.py COUNT READY_STEM; touches READY_STEM.ready.
"""

import os
import random
import sys
import time
from pathlib import Path

from memory import filled

shared = filled(32 / 1024)
for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        break
else:
    Path(sys.argv[2]).with_suffix(".ready").touch()
own = random.Random(os.getpid()).randbytes(8 << 20)
while True:
    time.sleep(0.01)
