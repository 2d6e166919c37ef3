"""What the benchmarks share: a process under criu-train whose memory plain CRIU can dump as well, and tables."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from criu_train.criu.find import find_criu

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent), "CRIU_TRAIN_WARMUP": "0"}
LIMIT_S = 900.0


def criu_train(store: Path, *words: str, env: Mapping[str, str] = ENVIRONMENT) -> str:
    """Run one command of ours and return what it printed."""
    command = [sys.executable, "-m", "criu_train", "--store", str(store), *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S, env=env)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    return done.stdout


def wait_until(happened: Callable[[], object], limit_s: float = 300.0) -> None:
    """Look every 5 ms; ends the benchmark when it takes too long."""
    end = time.monotonic() + limit_s
    while not happened():
        if time.monotonic() > end:
            raise SystemExit("it took too long")
        time.sleep(0.005)


class Subject:
    """A process under ``criu-train run``; ``command`` makes ``ready`` when it is worth measuring.

    ``key``: of an encrypted store.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, ready: Path, *options: str, key: Path | None = None
    ) -> None:
        self.directory = directory
        self.env = ENVIRONMENT | ({"CRIU_TRAIN_KEY_FILE": str(key)} if key else {})
        self.store = directory / "store"
        self.log = directory / "supervisor.log"
        chosen = options or ("--every", "0", "--keep", "1")
        with self.log.open("w") as log:
            self.supervisor = subprocess.Popen(
                [sys.executable, "-m", "criu_train", "--store", str(self.store), "run", *chosen, "--", *command],
                cwd=directory,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self.env,
            )
        wait_until(lambda: ready.exists() or self.supervisor.poll() is not None)
        if self.supervisor.poll() is not None:
            raise SystemExit(self.log.read_text())
        self.status: dict[str, Any] = json.loads(criu_train(self.store, "status", "--json"))

    def dump(self) -> dict[str, Any]:
        """Take a snapshot; what `snapshot list` tells about it."""
        criu_train(self.store, "dump", env=self.env)
        newest: dict[str, Any] = json.loads(criu_train(self.store, "snapshot", "list", "--json", env=self.env))[-1]
        return newest

    def plain_dump(self, images: Path) -> None:
        """`criu dump --leave-running` of the same tree."""
        images.mkdir()
        root = json.loads((self.store / "store.json").read_text())["pid_base"]
        done = subprocess.run(
            [
                *("nsenter", "-t", str(self.status["init_pid"]), "-p", "-m", *find_criu().command, "dump"),
                *("-t", str(root), "-D", str(images), "-o", str(self.directory / "plain.log")),
                *("--leave-running", "--link-remap", "--ghost-limit", "4G", "--file-locks"),
            ],
            check=False,
            capture_output=True,
            timeout=LIMIT_S,
        )
        if done.returncode != 0:
            raise SystemExit((self.directory / "plain.log").read_text()[-2000:])

    def kill(self) -> None:
        """End everything at once, as a power cut would."""
        for pid in (self.supervisor.pid, self.status["init_pid"]):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.supervisor.wait(60)


@contextmanager
def subject(
    command: Sequence[str], directory: Path, ready: Path, *options: str, key: Path | None = None
) -> Iterator[Subject]:
    """A Subject that is gone at the end."""
    one = Subject(command, directory, ready, *options, key=key)
    try:
        yield one
    finally:
        one.kill()


def settle(path: Path) -> None:
    """Let the disk finish what was written: it would slow down whatever is measured next."""
    subprocess.run(["sync", "-f", str(path)], check=True, timeout=LIMIT_S)


def remove(directory: Path) -> None:
    """Written out first, so that removing does not compete with writing."""
    settle(directory)
    shutil.rmtree(directory)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """min / median / max."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def row(*cells: object) -> None:
    """One line of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*cells: str) -> None:
    """The first two lines of a Markdown table."""
    row(*cells)
    row(*("---" for _ in cells))


def machine() -> str:
    """What the figures belong to, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ""
    )
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, kernel {os.uname().release.split('-')[0]}"
