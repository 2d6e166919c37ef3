"""Jobs of the training that renews its memory, and how to have them where a test wants them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import Job, workload


def renewing(*, steps: int, memory_mib: int, more: Sequence[str] = (), delay_s: float = 0.02) -> list[str]:
    """The command of the training; what it leaves does not depend on how long it rests after each step."""
    return workload("renewing.py", "--steps", steps, "--memory", memory_mib, "--delay", delay_s, *more)


def dump(job: Job) -> str:
    """A snapshot, however long that takes, while the training makes no step; returns its id."""
    (job.place / "hold").touch()
    try:
        return job.dump()
    finally:
        (job.place / "hold").unlink()


@contextmanager
def killed_job(command: Sequence[str], *, snapshots: int, steps_apart: int) -> Iterator[Job]:
    """It was killed a few steps after the last of its snapshots."""
    with tempfile.TemporaryDirectory(prefix="criu-train-test-", dir="/var/tmp") as place:
        job = Job(Path(place), command, "--every", "1h", "--keep", str(snapshots)).start()
        try:
            for _ in range(snapshots):
                job.wait_for_progress(steps_apart)
                dump(job)
            job.wait_for_progress(5)
        finally:
            job.kill_everything()
        yield job


def directories(job: Job) -> list[Path]:
    """Of all snapshots, the oldest first."""
    return sorted((job.store / "snapshots").iterdir(), key=lambda path: path.name.rpartition("-")[2])
