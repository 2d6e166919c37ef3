"""What encryption costs: `criu-train dump` of equal processes, one with a key and one without.

.venv/bin/python benchmarks/key.py --gib 1 2 --pairs 10
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import HERE, Subject, head, machine, row, settle, spread, subject, wait_until


@dataclass(frozen=True)
class Cost:
    """Seconds: how long the process stood still, and until the snapshot was complete."""

    pause: float
    whole: float
    stored: int


class Victim:
    """Tells how large its largest gap was."""

    def __init__(self, one: Subject, gap: Path) -> None:
        self.subject = one
        self.gap = gap

    def _gap(self) -> float:
        self.gap.unlink(missing_ok=True)
        os.kill(self.subject.status["root_pid"], signal.SIGUSR2)
        wait_until(self.gap.exists)
        return float(self.gap.read_text())

    def dump(self) -> Cost:
        self._gap()
        began = time.monotonic()
        told = self.subject.dump()
        whole = time.monotonic() - began
        pause = self._gap()
        settle(self.subject.store)
        return Cost(pause, whole, told["stored_bytes"])


def measure(gib: float, pairs: int) -> None:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as sealed:
        key = Path(sealed, "key")
        key.write_bytes(os.urandom(32))
        key.chmod(0o600)
        gaps = [Path(plain, "gap"), Path(sealed, "gap")]
        commands = [[sys.executable, str(HERE / "victim.py"), str(gib), str(gap)] for gap in gaps]
        with (
            subject(commands[0], Path(plain), gaps[0].with_suffix(".ready")) as first,
            subject(commands[1], Path(sealed), gaps[1].with_suffix(".ready"), key=key) as second,
        ):
            victims = [Victim(first, gaps[0]), Victim(second, gaps[1])]
            for victim in victims:
                victim.dump()
            costs: list[tuple[Cost, Cost]] = []
            for number in range(pairs):
                order = victims[:: 1 if number % 2 else -1]
                taken = {id(victim): victim.dump() for victim in order}
                costs.append((taken[id(victims[0])], taken[id(victims[1])]))
    row(
        f"{gib:g} GiB",
        spread([with_key.pause / without.pause for without, with_key in costs]),
        spread([with_key.whole / without.whole for without, with_key in costs]),
        spread([with_key.stored / without.stored for without, with_key in costs], 4),
    )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, nargs="+", default=[1])
    parser.add_argument("--pairs", type=int, default=10)
    chosen = parser.parse_args()
    print(f"{machine()}; with a key / without, as min / median / max, {chosen.pairs} pairs\n")
    head("incompressible", "pause", "until complete", "stored")
    for gib in chosen.gib:
        measure(gib, chosen.pairs)


if __name__ == "__main__":
    main()
