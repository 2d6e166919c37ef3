"""The demo: train once undisturbed, once with everything killed in the middle, and compare byte for byte.

Exit code 0 only when metrics and final weights are identical.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from rich.console import Console

TRAIN = Path(__file__).with_name("train.py")
COMMAND = [sys.executable, str(TRAIN), "--epochs", "20"]
CRIU_TRAIN = [sys.executable, "-m", "criu_train"]
COMPARED = ("metrics.jsonl", "weights.pt")
EVERY = "3s"
LIMIT_S = 150.0

console = Console(highlight=False)


def narrate(act: str, text: str) -> None:
    console.print()
    console.rule(f"[bold cyan]{act}", align="left", style="cyan")
    console.print(f"[bold]{text}[/bold]")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def train_undisturbed(directory: Path) -> None:
    begin = time.monotonic()
    subprocess.run(COMMAND, cwd=directory, check=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S)
    console.print(f"{lines(directory / 'metrics.jsonl')} batches in {time.monotonic() - begin:.0f} s")


def start(directory: Path) -> subprocess.Popen[bytes]:
    command = [*CRIU_TRAIN, "run", "--every", EVERY, "--keep", "3", "--", *COMMAND]
    return subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL)


def wait_until_there_is_much_to_lose(supervisor: subprocess.Popen[bytes], directory: Path) -> None:
    """A good part of the training is done, a snapshot of it is taken, and some more batches came after that."""
    metrics = directory / "metrics.jsonl"
    wait_for(supervisor, lambda: lines(metrics) >= 150, "150 batches")
    newest = snapshots(directory)[-1:]
    wait_for(supervisor, lambda: snapshots(directory)[-1:] != newest, "a snapshot")
    done = lines(metrics)
    wait_for(supervisor, lambda: lines(metrics) >= done + 40, "40 more batches")


def snapshots(directory: Path) -> list[Path]:
    return sorted(directory.glob(".criu-train/snapshots/*/COMPLETE"))


def wait_for(supervisor: subprocess.Popen[bytes], condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        if supervisor.poll() is not None:
            sys.exit(f"the training ended (exit code {supervisor.returncode}) before {what}")
        if time.monotonic() > end:
            kill_everything(supervisor)
            sys.exit(f"waited {LIMIT_S:g} s in vain for {what}")
        time.sleep(0.02)


def kill_everything(supervisor: subprocess.Popen[bytes]) -> int:
    """SIGKILL for the supervisor, the cell and every process of the training; returns how many there were."""
    victims = [psutil.Process(supervisor.pid), *psutil.Process(supervisor.pid).children(recursive=True)]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    supervisor.wait()
    psutil.wait_procs(victims, timeout=10)
    return len(victims)


def status(directory: Path) -> dict[str, object]:
    told = subprocess.run([*CRIU_TRAIN, "status", "--json"], cwd=directory, check=True, capture_output=True, timeout=60)
    return dict(json.loads(told.stdout))


def verdict(reference: Path, interrupted: Path) -> bool:
    """Compare what both trainings left, say so line by line, and tell whether all is identical."""
    same = True
    for name in COMPARED:
        equal = (interrupted / name).exists() and filecmp.cmp(reference / name, interrupted / name, shallow=False)
        same = same and equal
        size = (reference / name).stat().st_size
        console.print(f"  {name:<14} {size:>8,} bytes  " + ("[green]identical" if equal else "[red]DIFFERENT"))
    return same


def main() -> int:
    top = Path(tempfile.mkdtemp(prefix="criu-train-demo-", dir="/var/tmp"))
    reference, interrupted = top / "undisturbed", top / "interrupted"
    reference.mkdir()
    interrupted.mkdir()
    os.environ["OMP_NUM_THREADS"] = "1"

    narrate("1. The reference", f"python {TRAIN.name}, left alone:")
    train_undisturbed(reference)

    narrate("2. The same under criu-train", f"criu-train run --every {EVERY} --keep 3 -- python {TRAIN.name}")
    supervisor = start(interrupted)
    wait_until_there_is_much_to_lose(supervisor, interrupted)

    done = lines(interrupted / "metrics.jsonl")
    killed = kill_everything(supervisor)
    toll = f"{killed} processes: the supervisor, the cell, the training, its data loaders. {done} batches were done."
    narrate("3. SIGKILL for everything", toll)

    narrate("4. The same command again", "Nothing was said about resuming; the training knows nothing of it.")
    supervisor = start(interrupted)
    code = supervisor.wait(LIMIT_S)
    restored_from = status(interrupted)["restored_from"]

    narrate("5. What the store holds", "criu-train snapshot list")
    subprocess.run([*CRIU_TRAIN, "snapshot", "list"], cwd=interrupted, check=True, timeout=60)

    narrate("6. The verdict", "The interrupted training against the undisturbed one, byte for byte:")
    same = verdict(reference, interrupted) and code == 0 and restored_from is not None
    console.print(f"  carried on from snapshot {restored_from}; exit code {code}")
    console.print(f"  everything lies in {top}")
    if same:
        console.print("\n[bold green]Identical: the interruption left no trace in the result.")
    else:
        console.print("\n[bold red]NOT identical: this is a bug in criu-train.")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
