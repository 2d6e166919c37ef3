"""A process with so much memory that notices how long it stood still: the largest gap between two of its ticks.

Usage: victim.py [--half-zero] GIB GAP_FILE. Half a millisecond a tick; on SIGUSR2 it writes the largest gap since the
last SIGUSR2 (seconds) to GAP_FILE, by rename, and begins anew. After each gap of more than 50 ms of the wall clock it
writes the time of day to GAP_FILE.resumed.
"""

import os
import signal
import sys
import time
from pathlib import Path

from memory import filled

gap_file = Path(sys.argv[-1])
memory = filled(float(sys.argv[-2]), half_zero="--half-zero" in sys.argv)
asked = False


def on_ask(*_: object) -> None:
    global asked
    asked = True


def tell(path: Path, value: float) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f"{value:.6f}\n")
    os.replace(temporary, path)


signal.signal(signal.SIGUSR2, on_ask)
gap_file.with_suffix(".ready").touch()
resumed = gap_file.with_suffix(".resumed")
worst, last, wall = 0.0, time.perf_counter(), time.time()
while True:
    time.sleep(0.0005)
    now, here = time.perf_counter(), time.time()
    if here - wall > 0.05:
        tell(resumed, here)
        here = time.time()
    worst, last, wall = max(worst, now - last), now, here
    if asked:
        tell(gap_file, worst)
        asked, worst, last, wall = False, 0.0, time.perf_counter(), time.time()
