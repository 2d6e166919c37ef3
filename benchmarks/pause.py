"""How long does the training stand still: `criu-train dump` against plain `criu dump --leave-running`.

Both dump the very same process to the same disk, in alternating order, and the process itself says how long its
largest gap was. Quote the ratios: they are paired in one run, absolute times belong to the machine.

    .venv/bin/python benchmarks/pause.py --gib 0.2 1 2 --pairs 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from criu_train.criu.find import find_criu

VICTIM = Path(__file__).with_name("victim.py")


def criu_train(store: Path, *words: str, limit_s: float = 600) -> str:
    """Run one command of ours and return what it printed."""
    command = [sys.executable, "-m", "criu_train", "--store", str(store), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit_s).stdout


class Pair:
    """One victim under criu-train; the plain dump enters its cell with nsenter."""

    def __init__(self, gib: float, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store"
        self.gap = directory / "gap"
        self.supervisor = subprocess.Popen(
            [
                *(sys.executable, "-m", "criu_train", "--store", str(self.store), "run", "--every", "0", "--keep", "1"),
                *("--", sys.executable, str(VICTIM), str(gib), str(self.gap)),
            ],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=(directory / "supervisor.log").open("w"),
        )
        self._wait(lambda: self.gap.with_suffix(".ready").exists(), 300)
        self.status = json.loads(criu_train(self.store, "status", "--json"))
        self.pid_in_cell = json.loads((self.store / "store.json").read_text())["pid_base"]

    def _wait(self, happened, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while not happened():
            if time.monotonic() > end or self.supervisor.poll() is not None:
                raise SystemExit((self.directory / "supervisor.log").read_text())
            time.sleep(0.01)

    def _take_gap(self) -> float:
        self.gap.unlink(missing_ok=True)
        os.kill(self.status["root_pid"], signal.SIGUSR2)
        self._wait(self.gap.exists, 30)
        return float(self.gap.read_text())

    def ours(self) -> float:
        """Seconds the victim stood still for our dump."""
        self._take_gap()
        criu_train(self.store, "dump")
        return self._take_gap()

    def plain(self) -> float:
        """Seconds it stood still for plain CRIU, and the images are removed again."""
        images = self.directory / "plain"
        images.mkdir()
        criu = find_criu()
        self._take_gap()
        subprocess.run(
            [
                *("nsenter", "-t", str(self.status["init_pid"]), "-p", "-m", *criu.command, "dump"),
                *("-t", str(self.pid_in_cell), "-D", str(images), "-o", str(self.directory / "plain.log")),
                "--leave-running",
            ],
            check=True,
            capture_output=True,
            timeout=600,
        )
        gap = self._take_gap()
        # Pages of ours that wait for the disk would slow down the next dump, whoever's it is.
        subprocess.run(["sync", "-f", str(images)], check=True, timeout=600)
        shutil.rmtree(images)
        return gap

    def close(self) -> None:
        """End the victim and its supervisor."""
        os.kill(self.status["root_pid"], signal.SIGKILL)
        self.supervisor.send_signal(signal.SIGINT)
        self.supervisor.send_signal(signal.SIGINT)
        try:
            self.supervisor.wait(60)
        except subprocess.TimeoutExpired:
            os.kill(self.status["init_pid"], signal.SIGKILL)
            self.supervisor.kill()


def spread(values: list[float], digits: int) -> str:
    """min / median / max."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, nargs="+", default=[0.2, 1, 2])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure (default: TMPDIR)")
    chosen = parser.parse_args()
    print("| GiB | ours, s (min / median / max) | plain criu, s | ratio ours / plain, pair by pair |")
    print("|---|---|---|---|")
    for gib in chosen.gib:
        with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
            pair = Pair(gib, Path(name))
            try:
                pair.plain(), pair.ours()  # once for nothing: caches, first-use costs
                ours, plain = [], []
                for number in range(chosen.pairs):
                    order = (pair.ours, pair.plain) if number % 2 else (pair.plain, pair.ours)
                    for measure in order:
                        (ours if measure == pair.ours else plain).append(measure())
            finally:
                pair.close()
        ratios = [one / other for one, other in zip(ours, plain, strict=True)]
        print(f"| {gib:g} | {spread(ours, 3)} | {spread(plain, 3)} | {spread(ratios, 2)} |", flush=True)


if __name__ == "__main__":
    main()
