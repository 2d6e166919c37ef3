"""Only the owner gets in: whatever the umask, nothing that we make is open to others, not even for a moment."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
import pytest
from harness import Job, criu_train, environment, workload

from criu_train.criu.find import find_criu

StartJob = Callable[..., Job]

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(180)]

FILES = workload("files.py", "--steps", 3000, "--delay", 0.02)
RUNTIME = Path("/run/criu-train")
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def under(umask: int) -> list[str]:
    return ["sh", "-c", f'umask {umask:03o}; exec "$@"', "sh"]


def call(umask: int, *arguments: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [*under(umask), *criu_train(*arguments)],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def everything(top: Path) -> Iterator[Path]:
    yield top
    with contextlib.suppress(OSError):
        for entry in os.scandir(top):
            if entry.is_dir(follow_symlinks=False):
                yield from everything(Path(entry.path))
            else:
                yield Path(entry.path)


def open_to_others(tops: Iterable[Path], since: float) -> dict[str, str]:
    """Paths that others have rights to, with their modes. The training's own files, kept as they were, are its own."""
    found = {}
    for path in (path for top in tops for path in everything(top)):
        with contextlib.suppress(FileNotFoundError):
            info = path.lstat()
            kept = "rollback" in path.parts and "files" in path.parts[path.parts.index("rollback") :]
            if info.st_mode & OTHERS and info.st_ctime >= since and not stat.S_ISLNK(info.st_mode) and not kept:
                found[str(path)] = stat.filemode(info.st_mode)
    return found


@contextlib.contextmanager
def nothing_is_ever_open_to_others(*places: Path) -> Iterator[None]:
    """Looks all the time, at what is gone a moment later too."""
    found: dict[str, str] = {}
    done, since = threading.Event(), time.time()

    def look() -> None:
        while not done.is_set():
            found.update(open_to_others([*places, RUNTIME, *Path("/tmp").glob("criu-train*")], since))
            time.sleep(0.005)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join()
    assert found == {}


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277], ids=oct)
def test_a_run_leaves_nothing_to_others(start_job: StartJob, place: Path, umask: int) -> None:
    store, exported, there = (place / name for name in ("store", "exported", "new/there"))
    with nothing_is_ever_open_to_others(store, exported, place / "new"):
        job = start_job(FILES, "--every", "1h", "--prove", "never", by=under(umask), store=store)
        job.wait_for_step(30)
        job.dump()
        job.wait_for_progress(30)
        job.kill_everything()
        job.start("--prove", "newest")
        job.wait_for_restore()
        snapshot = job.dump()
        job.wait_for_progress(5)
        root = psutil.Process(job.wait_for_pid("root_pid"))
        assert f"Umask:\t{umask:04o}\n" in Path(f"/proc/{root.pid}/status").read_text()
        call(umask, "--store", str(store), "snapshot", "export", "--tar", snapshot, str(exported), cwd=place)
        call(umask, "--store", str(there), "snapshot", "import", str(exported), cwd=place)


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=oct)
def test_doctor_and_what_it_knows_leave_nothing_to_others(place: Path, umask: int) -> None:
    env = {"CRIU_TRAIN_PREFIX": str(place / "private/criu"), "CRIU_TRAIN_CRIU": str(find_criu().binary)}
    with nothing_is_ever_open_to_others():
        call(umask, "doctor", cwd=place, **env)
        call(umask, "doctor", "--for", "1s", "--", "sleep", "60", cwd=place)
    writable = stat.S_IWGRP | stat.S_IWOTH
    assert [path for path in everything(place / "private") if path.lstat().st_mode & writable] == []
