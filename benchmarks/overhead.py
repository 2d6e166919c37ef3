"""What it costs to be supervised: steps per second of a real training without us, under us, and with snapshots.

One training goes on all the time (both cores busy); stretches with and without snapshots alternate in it, so that the
ratios are paired. The processor time of our own processes is read from /proc.

    .venv/bin/python benchmarks/overhead.py --data-mib 256 --seconds 60
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import HERE, Subject, head, machine, row, spread, subject, wait_until

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of processes so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_bytes(pid: int) -> int:
    """What a process takes of memory that it shares with nobody, and its share of the rest."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def steps_in(steps: Path, since: float, until: float) -> float:
    """Steps per second between two times of day."""
    times = [float(line) for line in steps.read_text().splitlines()]
    return sum(since < one <= until for one in times) / (until - since)


def stretch(seconds: float) -> tuple[float, float]:
    """Do nothing for so long."""
    since = time.time()
    time.sleep(seconds)
    return since, time.time()


def idle(one: Subject, seconds: float) -> None:
    """Processor time and memory of supervisor and init when no snapshot is being taken."""
    pids = [one.supervisor.pid, one.status["init_pid"]]
    before = cpu_seconds(pids)
    time.sleep(seconds)
    share = (cpu_seconds(pids) - before) / seconds
    memory = sum(map(resident_bytes, pids)) / 1e6
    print(f"\nidle: supervisor and init take {100 * share:.3f} % of a core and {memory:.0f} MB\n", flush=True)


def packing(one: Subject, steps: Path, rounds: int, quiet: float) -> None:
    """The background writer: how long, and what the training loses while it works."""
    slow, took, pauses, added = [], [], [], []
    for _ in range(rounds):
        since, until = stretch(quiet)
        alone = steps_in(steps, since, until)
        began = time.time()
        listed = one.dump()
        ended = time.time()
        thawed = _thaw(steps, began, ended, listed["frozen_time_us"] / 1e6)
        slow.append(1 - steps_in(steps, thawed, ended) / alone)
        took.append(ended - thawed)
        pauses.append(listed["frozen_time_us"] / 1e6)
        added.append(listed["added_bytes"] / 1e6)
    head("pause, s", "from thaw to COMPLETE, s", "slowdown meanwhile, %", "added, MB")
    row(spread(pauses), spread(took), spread([100 * x for x in slow], 1), spread(added, 0))


def _thaw(steps: Path, began: float, ended: float, pause: float) -> float:
    """The end of the first gap between two steps that is as long as the pause."""
    times = [x for x in map(float, steps.read_text().splitlines()) if began - 1 < x <= ended]
    return next((b for a, b in itertools.pairwise(times) if b - a >= pause and b > began), ended)


def intervals(command: list[str], directory: Path, chosen: argparse.Namespace) -> None:
    """Steps per second without us and under us with a snapshot every so often, each in a process of its own."""
    results: dict[str, list[float]] = {}
    for turn in range(chosen.rounds):
        kinds = ["without us", "no timer", *(f"every {x} s" for x in chosen.every)]
        for kind in kinds[:: 1 if turn % 2 else -1]:
            where = directory / f"{kind}-{turn}".replace(" ", "-")
            where.mkdir()
            steps, ready = where / "steps", where / "gap.ready"
            if kind == "without us":
                alone = subprocess.Popen(command, cwd=where)
                wait_until(ready.exists)
                since, until = stretch(chosen.seconds)
                alone.send_signal(signal.SIGKILL)
                alone.wait()
            else:
                every = "0" if kind == "no timer" else kind.split()[1]
                with subject(command, where, ready, "--every", every, "--keep", "2"):
                    since, until = stretch(chosen.seconds)
            results.setdefault(kind, []).append(steps_in(steps, since, until))
    head("", "steps per second", "slowdown against without us, %")
    for kind, rates in results.items():
        lost = [100 * (1 - rate / alone) for rate, alone in zip(rates, results["without us"], strict=True)]
        row(kind, spread(rates, 1), spread(lost, 1))


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-mib", type=int, default=256)
    parser.add_argument("--state-mb", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="of one stretch")
    parser.add_argument("--every", type=int, nargs="*", default=[10, 30, 60])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure (default: TMPDIR)")
    chosen = parser.parse_args()
    print(f"{machine()}; PyTorch on {os.cpu_count()} threads, {chosen.data_mib} MiB of data, "
          f"{chosen.state_mb:g} MB of Adam state; min / median / max")  # fmt: skip
    command = [
        *(sys.executable, str(HERE / "trainee.py"), "--gap", "gap", "--steps", "steps"),
        *("--threads", str(os.cpu_count()), "--data-mib", str(chosen.data_mib), "--state-mb", str(chosen.state_mb)),
    ]
    with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
        directory = Path(name)
        with subject(command, directory, directory / "gap.ready") as one:
            idle(one, chosen.seconds)
            packing(one, directory / "steps", max(2, chosen.rounds), min(20.0, chosen.seconds))
        print(flush=True)
        if chosen.every:
            intervals(command, directory, chosen)


if __name__ == "__main__":
    main()
