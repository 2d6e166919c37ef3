"""How long until the training runs again: `criu-train restore` against plain `criu restore` of the same images.

From the start of the command to the first tick of the restored process, Python's own start and every check included.

    .venv/bin/python benchmarks/restore.py --gib 0.25 1 2 4 --pairs 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import ENVIRONMENT, HERE, criu_train, head, machine, row, spread, subject, wait_until

from criu_train.criu.find import find_criu


def drop_caches() -> None:
    """Needs the rights of the real root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def read_all(directory: Path) -> None:
    """Into the page cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 22):
                    pass


class Restores:
    """One snapshot, restored in both ways again and again. ``store`` and ``images`` hold the same instant."""

    def __init__(self, work: Path, logs: Path, store: Path, images: Path) -> None:
        self.work = work
        self.logs = logs
        self.store = store
        self.images = images
        self.resumed = work / "gap.resumed"

    def _until_resumed(self, began: float) -> float:
        wait_until(lambda: self.resumed.exists() and float(self.resumed.read_text()) > began)
        return float(self.resumed.read_text()) - began

    def ours(self) -> float:
        """Seconds to running, from the store."""
        self.resumed.unlink(missing_ok=True)
        began = time.time()
        with (self.logs / "restore.log").open("w") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "criu_train", "--store", str(self.store), "restore", "--latest", "--every", "0"],
                cwd=self.work,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=ENVIRONMENT,
            )
        try:
            return self._until_resumed(began)
        finally:
            time.sleep(0.5)  # it has not told yet where init is
            init = json.loads(criu_train(self.store, "status", "--json"))["init_pid"]
            supervisor.send_signal(signal.SIGKILL)
            supervisor.wait(60)
            if init:
                os.kill(init, signal.SIGKILL)
            wait_until(lambda: not init or not Path(f"/proc/{init}").exists())

    def plain(self) -> float:
        """Seconds to running, by CRIU itself in fresh namespaces."""
        self.resumed.unlink(missing_ok=True)
        began = time.time()
        cell = subprocess.Popen(
            [
                *("unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"),
                *("sh", "-c", '"$@" && exec sleep 600', "sh", *find_criu().command, "restore"),
                *("-D", str(self.images), "-o", str(self.logs / "plain.log"), "--restore-detached"),
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            return self._until_resumed(began)
        finally:
            cell.kill()
            cell.wait(60)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, nargs="+", default=[0.25, 1, 2])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure (default: TMPDIR)")
    chosen = parser.parse_args()
    print(f"{machine()}; min / median / max of {chosen.pairs} pairs\n")
    head("GiB", "page cache", "ours, s", "plain criu, s", "ours / plain")
    for gib in chosen.gib:
        with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
            # What lies in the working directory and is newer than the snapshot, a restore moves out of the way.
            work, exported = Path(name, "work"), Path(name, "exported")
            work.mkdir()
            gap = work / "gap"
            command = [sys.executable, str(HERE / "victim.py"), str(gib), str(gap)]
            with subject(command, work, gap.with_suffix(".ready")) as one:
                one.dump()
            criu_train(one.store, "snapshot", "export", "latest", str(exported))
            images = next(path.parent for path in exported.rglob("inventory.img"))
            restores = Restores(work, Path(name), one.store, images)
            for cache in ("warm", "dropped"):
                seconds: dict[str, list[float]] = {"ours": [], "plain": []}
                for number in range(chosen.pairs):
                    for way in ("ours", "plain") if number % 2 else ("plain", "ours"):
                        if cache == "dropped":
                            drop_caches()
                        else:
                            read_all(one.store / "snapshots" if way == "ours" else images)
                        seconds[way].append(restores.ours() if way == "ours" else restores.plain())
                ratios = [a / b for a, b in zip(seconds["ours"], seconds["plain"], strict=True)]
                row(gib, cache, spread(seconds["ours"]), spread(seconds["plain"]), spread(ratios))
            shutil.rmtree(exported)


if __name__ == "__main__":
    main()
