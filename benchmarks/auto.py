"""How much of the time ``--every auto`` takes while the pause becomes several times as long, and short again.

A training holds little memory, then much, then little. Its own clock tells of every gap between two steps; ours, from
events.jsonl, must agree.

    .venv/bin/python benchmarks/auto.py --minutes 6 --overhead 1% --mtbf 60s
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from bench import machine

TRAINING = """
import mmap, os, random, sys, time
third, small, large = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def held(mib):
    block = mmap.mmap(-1, mib << 20)
    for at in range(0, mib << 20, 1 << 20):
        block[at:at + (1 << 20)] = os.urandom(1 << 20)
    return block
began, block = time.monotonic(), held(small)
phase, last, gap = 0, time.monotonic(), 0.0
while (now := time.monotonic()) < began + 3 * third:
    if now - last > 0.03:
        print("gap", now - last, flush=True)
    if int((now - began) / third) != phase:
        phase += 1
        block.close()
        block = held(large if phase == 1 else small)
        now = time.monotonic()
    last = now
    time.sleep(0.002)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--overhead", default="1%")
    parser.add_argument("--mtbf", default="60s")
    parser.add_argument("--small", type=int, default=64, help="MiB")
    parser.add_argument("--large", type=int, default=1024, help="MiB")
    chosen = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        program = Path(place, "train.py")
        program.write_text(TRAINING)
        training = [sys.executable, str(program), *map(str, (chosen.minutes * 20, chosen.small, chosen.large))]
        options = ["--every", "auto", "--overhead", chosen.overhead, "--mtbf", chosen.mtbf, "--warmup", "10s"]
        subprocess.run(
            [sys.executable, "-m", "criu_train", "run", *options, "--", *training], cwd=place, check=True,
            stdout=subprocess.DEVNULL, timeout=chosen.minutes * 120,
        )  # fmt: skip
        store = Path(place, ".criu-train")
        events = [json.loads(line) for line in (store / "events.jsonl").read_text().splitlines()]
        gaps = [float(line.split()[1]) for line in (store / "output.log").read_text().splitlines()]
    at = {
        name: [datetime.fromisoformat(e["at"]) for e in events if e["event"] == name]
        for name in ("started", "finished")
    }
    began, ended = at["started"][0], at["finished"][-1]
    pauses = [(e["at"], e["frozen_time_us"] / 1e6, e["memory_bytes"] >> 20) for e in events if e["event"] == "dumped"]
    paused, worst = 0.0, 0.0
    for when, pause_s, mib in pauses:
        paused += pause_s
        share = paused / (datetime.fromisoformat(when) - began).total_seconds()
        worst = max(worst, share)
        print(f"{when}  {mib:5d} MiB  paused {pause_s:.3f} s, {share:.2%} so far")
    wall = (ended - began).total_seconds()
    lengths = [pause for _, pause, _ in pauses]
    print(f"{len(pauses)} snapshots in {wall:.0f} s, pauses {min(lengths):.3f} to {max(lengths):.3f} s")
    print(
        f"paused {paused / wall:.2%} of the time by the supervisor, {sum(gaps) / wall:.2%} by the training's own gaps"
    )
    print(f"the most at the end of any snapshot: {worst:.2%}")


if __name__ == "__main__":
    main()
