"""A training that draws a progress bar where it has a terminal, as tqdm does, and notes what it knows of the terminal.

Each redraw is padded to the terminal's width; a new width is asked for on SIGWINCH only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys

from rest import rest


class Width:
    """Columns of the terminal, 0 without one."""

    def __init__(self) -> None:
        self.measure()
        signal.signal(signal.SIGWINCH, self.measure)

    def measure(self, *_: object) -> None:
        self.columns = os.get_terminal_size(2).columns if sys.stderr.isatty() else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--delay", type=float, default=0.02)
    options = parser.parse_args()
    width = Width()
    with open("metrics.jsonl", "a") as metrics:
        for step in range(options.steps):
            with open("/dev/tty") as terminal:
                mine = os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
            known = {"step": step, "terminal": [stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)]}
            metrics.write(json.dumps({**known, "foreground": mine, "width": width.columns}) + "\n")
            metrics.flush()
            sys.stderr.write(f"\r{f'{step}/{options.steps}':<{width.columns}}")
            if step % 20 == 0:
                print(f"\nepoch {step // 20}", flush=True)
            rest(options.delay)
