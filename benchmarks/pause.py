"""How long does the training stand still: `criu-train dump` against plain `criu dump --leave-running`, and a memcpy.

All dump the very same process in turn, and the process itself says how long its largest gap was. Quote the ratios:
they are paired in one run, absolute times belong to the machine.

    .venv/bin/python benchmarks/pause.py --gib 0.25 1 2 4 --pairs 10
    .venv/bin/python benchmarks/pause.py --torch 0 2 4 --pairs 10
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import HERE, Subject, head, machine, remove, row, settle, spread, subject, wait_until

TMPFS = Path("/dev/shm")


class Pause:
    """What one subject says about its gaps."""

    def __init__(self, subject: Subject, gap: Path) -> None:
        self.subject = subject
        self.gap = gap

    def _take(self) -> float:
        self.gap.unlink(missing_ok=True)
        os.kill(self.subject.status["root_pid"], signal.SIGUSR2)
        wait_until(self.gap.exists)
        return float(self.gap.read_text())

    def ours(self) -> float:
        """Seconds it stood still for our dump."""
        self._take()
        self.subject.dump()
        gap = self._take()
        settle(self.subject.store)
        return gap

    def plain(self, images: Path) -> float:
        """Seconds it stood still for plain CRIU; the images are removed again."""
        self._take()
        self.subject.plain_dump(images)
        gap = self._take()
        remove(images)
        return gap


class Memcpy:
    """The same bytes copied to memory that is there already, in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "memory.py"), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.seconds()

    def seconds(self) -> float:
        """Of one copy."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def ratios(ours: Sequence[float], others: Sequence[float]) -> str:
    return spread([one / other for one, other in zip(ours, others, strict=True)]) if others else "not measured"


def measure(label: str, command: Sequence[str], pairs: int, directory: Path | None, copied: Sequence[str] = ()) -> None:
    """One line of the table."""
    with tempfile.TemporaryDirectory(dir=directory) as name, tempfile.TemporaryDirectory(dir=TMPFS) as quick:
        gap = Path(name, "gap")
        with subject([*command, str(gap)], Path(name), gap.with_suffix(".ready")) as one:
            pause = Pause(one, gap)
            measures = {
                "ours": pause.ours,
                "disk": lambda: pause.plain(Path(name, "plain")),
                "tmpfs": lambda: pause.plain(Path(quick, "plain")),
            }
            for first in measures.values():  # once for nothing: caches, first-use costs
                first()
            seconds: dict[str, list[float]] = {key: [] for key in measures}
            for number in range(pairs):
                for key in list(measures)[:: 1 if number % 2 else -1]:
                    seconds[key].append(measures[key]())
        copies = []
        if copied:
            memcpy = Memcpy(*copied)
            copies = [memcpy.seconds() for _ in range(pairs)]
            memcpy.close()
    ours = seconds["ours"]
    row(
        label,
        spread(ours, 3),
        spread(seconds["disk"], 3),
        ratios(ours, seconds["disk"]),
        ratios(ours, seconds["tmpfs"]),
        ratios(ours, copies),
    )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, nargs="*", default=[])
    parser.add_argument("--half-zero", action="store_true", help="every other MiB is zeros")
    parser.add_argument("--torch", type=int, nargs="*", default=[], help="a PyTorch training with so many workers")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure (default: TMPDIR)")
    chosen = parser.parse_args()
    print(f"{machine()}; seconds and ratios as min / median / max, {chosen.pairs} pairs\n")
    head("", "ours, s", "plain criu, same disk, s", "ours / plain, disk", "ours / plain, tmpfs", "ours / memcpy")
    kind = ("--half-zero",) if chosen.half_zero else ()
    for gib in chosen.gib:
        label = f"{gib:g} GiB, {'half zeros' if kind else 'incompressible'}"
        victim = [sys.executable, str(HERE / "victim.py"), *kind, str(gib)]
        measure(label, victim, chosen.pairs, chosen.directory, (*kind, str(gib)))
    for workers in chosen.torch:
        trainee = [sys.executable, str(HERE / "trainee.py"), "--workers", str(workers), "--gap"]
        measure(f"PyTorch, {workers} workers", trainee, chosen.pairs, chosen.directory)


if __name__ == "__main__":
    main()
