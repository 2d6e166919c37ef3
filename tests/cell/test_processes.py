"""Who is there, read from /proc while others come and go."""

from __future__ import annotations

import subprocess
import sys
import time

from criu_train.cell import processes

# Six children that end within a moment, and behind them one that stays until a line comes; then all anew.
COMING_AND_GOING = """
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    for number in range(6):
        if os.fork() == 0:
            time.sleep(0.0015 + 0.0002 * number)
            os._exit(0)
    stays = os.fork()
    if stays == 0:
        time.sleep(10)
        os._exit(0)
    print(stays, flush=True)
    sys.stdin.readline()
    os.kill(stays, signal.SIGKILL)
"""


def test_a_child_is_found_also_while_others_before_it_end() -> None:
    """The kernel itself passes it over at times: it counts how far it has come, and those it counts become fewer."""
    argv = [sys.executable, "-c", COMING_AND_GOING]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as parent:
        try:
            assert parent.stdin is not None and parent.stdout is not None
            for line, _ in zip(parent.stdout, range(150), strict=False):
                until = time.monotonic() + 0.008
                while time.monotonic() < until:
                    assert int(line) in processes.children(parent.pid)
                parent.stdin.write("\n")
        finally:
            parent.kill()
