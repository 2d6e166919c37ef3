"""Directories of workers: one's own as long as one lives, and swept away afterwards by whoever comes next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import environment

from criu_train.archive.worker_directory import WorkerDirectory

KILLED = """
import os, signal, sys
from pathlib import Path
from criu_train.archive.worker_directory import WorkerDirectory
directory = WorkerDirectory(Path(sys.argv[1]), sys.argv[2])
(directory.path / "socket").touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


def be_killed(runtime: Path, prefix: str) -> Path:
    """What a killed process has left."""
    command = [sys.executable, "-c", KILLED, str(runtime), prefix]
    assert subprocess.run(command, env=environment(), timeout=30, check=False).returncode == -9
    [left] = runtime.glob(f"{prefix}*")
    return left


def test_what_a_killed_process_left_goes_when_the_next_of_its_kind_comes(tmp_path: Path) -> None:
    left = be_killed(tmp_path, "proof-")
    WorkerDirectory(tmp_path, "a-").close()
    assert left.exists(), "of another kind"
    WorkerDirectory(tmp_path, "proof-").close()
    assert not list(tmp_path.iterdir())


def test_that_of_somebody_who_lives_stays(tmp_path: Path) -> None:
    first = WorkerDirectory(tmp_path, "proof-")
    WorkerDirectory(tmp_path, "proof-").close()
    assert first.path.exists()
    first.close()
    assert not first.path.exists()
