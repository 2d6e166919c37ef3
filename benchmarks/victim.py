"""A process with so much memory that notices how long it stood still: the largest gap between two of its ticks.

Usage: victim.py GIB GAP_FILE. Half a millisecond a tick; on SIGUSR2 it writes the largest gap since the last SIGUSR2
(seconds) to GAP_FILE, by rename, and begins anew.
"""

import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

gap_file = Path(sys.argv[2])
memory = mmap.mmap(-1, int(float(sys.argv[1]) * 2**30), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
noise = random.Random(1).randbytes(1 << 20)
for at in range(0, len(memory) - len(noise) + 1, len(noise)):
    memory[at : at + len(noise)] = noise  # incompressible, and every page is there

asked = False


def on_ask(*_: object) -> None:
    global asked
    asked = True


signal.signal(signal.SIGUSR2, on_ask)
gap_file.with_suffix(".ready").touch()
worst, last = 0.0, time.perf_counter()
while True:
    time.sleep(0.0005)
    now = time.perf_counter()
    worst, last = max(worst, now - last), now
    if asked:
        temporary = gap_file.with_suffix(".tmp")
        temporary.write_text(f"{worst:.6f}\n")
        os.replace(temporary, gap_file)
        asked, worst, last = False, 0.0, time.perf_counter()
