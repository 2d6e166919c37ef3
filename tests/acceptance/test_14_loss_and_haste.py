"""The archive's process is lost while it hands images out, and SIGTERM comes at an awkward moment: nothing is lost."""

from __future__ import annotations

import signal
import time

import psutil
import pytest
from conftest import Reference, StartJob
from harness import Job, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = workload("plain.py", "--steps", 1000, "--delay", 0.02, "--memory", 400)


def restorer(job: Job) -> psutil.Process | None:
    """The archive's process of a job whose CRIU restores at this moment."""
    assert job.process is not None
    supervisor = psutil.Process(job.process.pid)
    if not any("restore" in p.cmdline() and "--stream" in p.cmdline() for p in supervisor.children(recursive=True)):
        return None
    return next((p for p in supervisor.children() if any("archive" in word for word in p.cmdline())), None)


def killed_while_it_restores(job: Job, times: int) -> int:
    """How often the archive's process was killed in the middle of a restore."""
    killed: set[int] = set()
    end = time.monotonic() + 60
    while len(killed) < times and time.monotonic() < end and job.process is not None and job.process.poll() is None:
        try:
            process = restorer(job)
            if process is not None and process.pid not in killed:
                process.kill()
                killed.add(process.pid)
        except psutil.NoSuchProcess:
            continue
    return len(killed)


def interrupted(start_job: StartJob) -> tuple[Job, str]:
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_step(10)
    snapshot = job.dump()
    job.wait_for_progress(3)
    job.kill_everything()
    return job, snapshot


def test_a_process_killed_while_it_hands_images_out_is_replaced_and_the_same_snapshot_restored(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job, snapshot = interrupted(start_job)
    job.start()
    assert killed_while_it_restores(job, 1) == 1
    assert job.wait_for_restore()["restored_from"] == snapshot
    assert job.finish() == 0
    assert job.contents() == undisturbed(TRAINING).contents


def test_one_that_is_killed_every_time_stops_the_run_and_the_next_try_goes_on(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job, snapshot = interrupted(start_job)
    before = job.contents()
    job.start()
    assert killed_while_it_restores(job, 3) == 3
    assert job.wait(30) == 125
    assert "cold start" not in job.said().split("restore")[-1]
    assert job.contents() == before
    job.start()
    assert job.wait_for_restore()["restored_from"] == snapshot
    assert job.finish() == 0
    assert job.contents() == undisturbed(TRAINING).contents


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.4])
def test_a_stop_in_any_phase_of_a_dump_is_followed_by_the_last_snapshot(
    start_job: StartJob, undisturbed: Reference, after_s: float
) -> None:
    job = start_job(TRAINING, "--every", "1h", "--grace", "20s")
    job.wait_for_step(10)
    job.send(signal.SIGUSR1)
    time.sleep(after_s)
    job.send(signal.SIGTERM)
    assert job.wait(25) == 143
    assert job.complete()[-1]["trigger"] == "preempt"
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == undisturbed(TRAINING).contents
    until(lambda: not job.process or job.process.poll() is not None, "the supervisor to end")
