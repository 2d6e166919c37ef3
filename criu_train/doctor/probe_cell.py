"""PID 1 of the probe's cell: standard library only, run as a file.

``dump DIR COMMAND…`` starts the tree, lets COMMAND dump it, and sees whether it goes on.
``restore DIR COMMAND…`` lets COMMAND restore it, and sees whether it goes on from where it was dumped.
When this process ends, the kernel kills everything else in the cell. Its exit code is a Stage.
"""

from __future__ import annotations

import enum
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT_PID = 1000
CRIU_LIMIT_S = 20.0
PROGRESS_LIMIT_S = 5.0
_TICKS = 5  # lines of the log that count as progress
_SHM = Path("/dev/shm")  # noqa: S108 - where semaphores live; a private one is mounted here


class Stage(enum.IntEnum):
    """How far the probe came: the first thing that did not work."""

    ALL = 0
    START = 10
    DUMP = 11
    RUN_ON = 12
    RESTORE = 13
    GO_ON = 14


def main(mode: str, directory: Path, command: list[str]) -> Stage:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", _SHM], check=True)
    log = directory / "log"
    if mode == "dump":
        return _dump(log, directory, command)
    return _restore(log, directory, command)


def save_links(directory: Path) -> None:
    """Called by CRIU while the tree stands still: keep the links to deleted files that CRIU is about to remove."""
    _copy(_SHM, directory / "shm", "link_remap.*")


def _dump(log: Path, directory: Path, command: list[str]) -> Stage:
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(ROOT_PID - 1), encoding="ascii")
    if os.fork() == 0:
        _become_tree(log)
    if not _wait(lambda: len(_numbers(log)) >= _TICKS):
        return Stage.START
    if not _run(command):
        return Stage.DUMP
    before = len(_numbers(log))
    if not _wait(lambda: len(_numbers(log)) >= before + _TICKS):
        return Stage.RUN_ON
    return Stage.ALL


def _restore(log: Path, directory: Path, command: list[str]) -> Stage:
    _copy(directory / "shm", _SHM, "link_remap.*")
    before = _numbers(log)
    if not _run(command):
        return Stage.RESTORE
    if not _wait(lambda: len(_numbers(log)) >= len(before) + _TICKS):
        return Stage.GO_ON
    after = _numbers(log)[len(before) :]
    goes_on = after == list(range(after[0], after[0] + len(after))) and _TICKS <= after[0] <= before[-1]
    return Stage.ALL if goes_on else Stage.GO_ON


def _become_tree(log: Path) -> None:
    """CRIU can only look up descriptors that were opened inside the cell."""
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY):
        os.open(os.devnull, flags)
    os.setsid()
    os.chdir("/")
    tree = Path(__file__).with_name("probe_tree.py")
    os.execv(sys.executable, [sys.executable, "-I", str(tree), str(log)])  # noqa: S606 - no shell is wanted


def _run(command: list[str]) -> bool:
    try:
        return subprocess.run(command, timeout=CRIU_LIMIT_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _numbers(log: Path) -> list[int]:
    text = log.read_text(encoding="ascii") if log.exists() else ""
    return [int(line) for line in text.split("\n")[:-1]]


def _wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PROGRESS_LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _copy(source: Path, target: Path, pattern: str) -> None:
    target.mkdir(exist_ok=True)
    for path in source.glob(pattern):
        copy = target / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(path.stat().st_mode & 0o7777)


if __name__ == "__main__":
    if os.environ.get("CRTOOLS_SCRIPT_ACTION"):
        if os.environ["CRTOOLS_SCRIPT_ACTION"] == "post-dump":
            save_links(Path(sys.argv[1]))
    else:
        sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
