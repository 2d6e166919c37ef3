"""Two ranks that talk to each other all the time are killed, and go on where they were."""

from __future__ import annotations

import signal

import pytest
from conftest import Reference, StartJob
from harness import torchrun

pytestmark = [pytest.mark.criu, pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(240)]

COMMAND = torchrun("--steps", 700, "--delay", 0.03)


def test_a_ddp_job_killed_twice_leaves_the_logs_of_an_undisturbed_one(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(COMMAND, "--every", "1h")
    job.wait_for_step(20, "rank1.jsonl")
    for generation in (1, 2):
        job.dump()
        for rank in range(2):
            job.wait_for_progress(7 * generation, f"rank{rank}.jsonl")
        job.kill_everything()
        job.start()
        job.wait_for_restore()
        job.wait_for_progress(20, "rank1.jsonl")
    assert job.finish(120) == 0
    assert job.contents() == undisturbed(COMMAND).contents
    assert len({snapshot["run"] for snapshot in job.complete()}) == 1


def test_a_ddp_job_goes_on_from_the_very_instant_after_sigterm(start_job: StartJob, undisturbed: Reference) -> None:
    job = start_job(COMMAND, "--every", "1h")
    job.wait_for_step(50, "rank0.jsonl")
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    job.start()
    job.wait_for_restore()
    assert job.finish(120) == 0
    assert job.contents() == undisturbed(COMMAND).contents
