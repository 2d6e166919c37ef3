"""What grows with the number of snapshots and of processes.

A real snapshot is multiplied (hard links, manifests of their own); listing, verifying and pruning are timed as whole
commands, the start of Python included. Then trees of 1, 4 and 16 processes are dumped.

    .venv/bin/python benchmarks/growth.py --snapshots 10 100 1000 --processes 1 4 16
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench import HERE, criu_train, head, machine, row, spread, subject

from criu_train.store.digest import digest_bytes
from criu_train.store.layout import sequence_of


def multiply(store: Path, wanted: int) -> None:
    """Until the store has so many complete snapshots, each with the bytes of the first."""
    first = min((store / "snapshots").iterdir())
    manifest = json.loads((first / "manifest.json").read_bytes())
    there = os.listdir(store / "snapshots")
    newest = max(int(name[-6:]) for name in there)
    for number in range(newest + 1, newest + 1 + wanted - len(there)):
        copy = first.with_name(f"{first.name[:-6]}{number:06d}")
        shutil.copytree(first, copy, copy_function=os.link)
        data = json.dumps({**manifest, "id": copy.name, "sequence": sequence_of(copy.name)}).encode()
        for name, content in (("manifest.json", data), ("COMPLETE", digest_bytes(data).encode() + b"\n")):
            (copy / name).unlink()
            (copy / name).write_bytes(content)
            (copy / name).chmod(0o600)
        for part in (copy, *(p for p in copy.rglob("*") if p.is_dir())):
            part.chmod(0o700)
    assert len(json.loads(criu_train(store, "snapshot", "list", "--json"))) == wanted


def timed(store: Path, *words: str) -> float:
    """Seconds of one whole command."""
    began = time.perf_counter()
    criu_train(store, *words)
    return time.perf_counter() - began


def snapshots(counts: list[int], directory: Path) -> None:
    """Cost against the number of snapshots."""
    gap = directory / "gap"
    with subject(
        [sys.executable, str(HERE / "victim.py"), "0.02", str(gap)], directory, gap.with_suffix(".ready")
    ) as one:
        one.dump()
        store = one.store
    head("snapshots", "list, s", "list --json, s", "verify the newest, s", "prune one away, s")
    for count in counts:
        multiply(store, count)
        listed = [timed(store, "snapshot", "list") for _ in range(5)]
        as_json = [timed(store, "snapshot", "list", "--json") for _ in range(5)]
        verified = [timed(store, "snapshot", "verify") for _ in range(3)]
        pruned = timed(store, "snapshot", "prune", "--keep", str(count - 1))
        row(count, spread(listed), spread(as_json), spread(verified), f"{pruned:.2f}")


def processes(counts: list[int], directory: Path) -> None:
    """Cost against the number of processes."""
    print(flush=True)
    head("processes", "pause, s", "time of the whole dump, s", "memory, MB", "added by the next snapshot, MB")
    for count in counts:
        where = directory / str(count)
        where.mkdir()
        gap = where / "gap"
        with subject(
            [sys.executable, str(HERE / "family.py"), str(count), str(gap)], where, gap.with_suffix(".ready")
        ) as one:
            one.dump()
            pauses, took, listed = [], [], {}
            for _ in range(5):
                began = time.perf_counter()
                listed = one.dump()
                took.append(time.perf_counter() - began)
                pauses.append(listed["frozen_time_us"] / 1e6)
            memory, added = listed["memory_bytes"] / 1e6, listed["added_bytes"] / 1e6
            row(count, spread(pauses, 3), spread(took), f"{memory:.0f}", f"{added:.1f}")


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snapshots", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure (default: TMPDIR)")
    chosen = parser.parse_args()
    print(f"{machine()}; min / median / max\n")
    with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
        if chosen.snapshots:
            snapshots(chosen.snapshots, Path(name))
        if chosen.processes:
            processes(chosen.processes, Path(name))


if __name__ == "__main__":
    main()
