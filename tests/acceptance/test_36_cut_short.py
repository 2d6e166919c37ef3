"""A restore that is itself cut short, say while CRIU has lent names to files that have none: the next one works.

``CUT_SHORT`` restores of each kind (four) are killed at random moments; ``CUT_SHORT_SEED`` repeats those of a run.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from conftest import Reference, StartJob
from faults.victims import criu, init
from harness import Job, torchrun, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(240)]

COMMAND = workload("deleted.py")


def lent(job: Job) -> set[Path]:
    return {*job.work.glob("*.ghost"), *Path("/dev/shm").glob("*.ghost")}


def kill(who: Callable[[Job], list[psutil.Process]]) -> Callable[[Job], None]:
    def strike(job: Job) -> None:
        for process in who(job):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    return strike


def restoring(job: Job) -> None:
    """Start it, and wait until CRIU is in the middle of its restore."""
    job.start()
    until(lambda: lent(job), "files that CRIU lends a name to")


def kill_everything_and_run_again(job: Job) -> None:
    job.kill_everything()
    for _ in range(10):
        if lent(job):
            break
        restoring(job)  # again: that restore was over before it was struck
        job.kill_everything()
    assert lent(job), "no restore could be struck in the middle"
    job.start()


def kill_supervisor_and_run_again(job: Job) -> None:
    job.kill_supervisor()
    job.start()


STRIKES = {
    "criu": kill(criu),
    "init": kill(init),
    "supervisor": kill_supervisor_and_run_again,
    "everything": kill_everything_and_run_again,
}


@pytest.mark.parametrize("strike", STRIKES.values(), ids=STRIKES)
def test_a_restore_that_is_killed_in_the_middle_is_done_again_from_the_same_snapshot(
    start_job: StartJob, undisturbed: Reference, strike: Callable[[Job], None]
) -> None:
    job = start_job(COMMAND, "--every", "1h")
    job.wait_for_step(20)
    dumped = job.dump()
    job.wait_for_progress(3)
    job.kill_everything()
    assert not lent(job)
    restoring(job)
    strike(job)
    assert job.wait_for_restore()["restored_from"] == dumped
    assert not lent(job)
    assert job.finish() == 0
    assert job.contents() == undisturbed(COMMAND).contents


@pytest.mark.parametrize(
    ("command", "log"),
    [
        pytest.param(workload("deleted.py"), "metrics.jsonl", id="deleted"),
        pytest.param(workload("pool.py", "--start-method", "spawn", "--steps", 300), "metrics.jsonl", id="pool"),
        pytest.param(torchrun("--steps", 400, "--delay", 0.03), "rank1.jsonl", id="ranks", marks=pytest.mark.torch),
    ],
)
def test_restores_that_are_killed_at_random_moments_take_nothing_from_the_next(
    start_job: StartJob, undisturbed: Reference, command: Sequence[str], log: str
) -> None:
    seed = int(os.environ.get("CUT_SHORT_SEED") or random.randrange(1 << 32))
    dice = random.Random(seed)
    print(f"CUT_SHORT_SEED={seed}")
    job = start_job(command, "--every", "1h")
    job.wait_for_step(20, log)
    dumped = job.dump()
    job.kill_everything()
    began = time.monotonic()
    job.start()
    job.wait_for_restore()
    takes = time.monotonic() - began
    job.kill_everything()
    for _ in range(int(os.environ.get("CUT_SHORT", "4"))):
        job.start()
        time.sleep(dice.uniform(0.3, 1) * takes)
        job.kill_everything()
    job.start()
    assert job.wait_for_restore()["restored_from"] == dumped
    assert not lent(job)
    assert job.finish(120) == 0
    assert job.contents() == undisturbed(command).contents
