"""Where no snapshot can be restored, a training goes on from a checkpoint of its own by ``--cold-command``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import Reference, StartJob
from harness import Job, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = workload("resuming.py", "--steps", 2000)
RESUMING = [*TRAINING, "--resume", "last.json"]


def started(job: Job) -> dict[str, Any]:
    return [event for event in job.events() if event["event"] == "started"][-1]


def run_of(job: Job) -> Any:
    return json.loads((job.store / "store.json").read_text())["run"]


def damage(snapshot: Path) -> None:
    pages = max((snapshot / "packs").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(pages.read_bytes())
    data[len(data) // 2] ^= 0xFF
    pages.chmod(0o600)
    pages.write_bytes(data)


def test_a_run_whose_snapshots_are_all_damaged_goes_on_by_the_cold_command(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(TRAINING, "--every", "1h", "--cold-command", shlex.join(RESUMING))
    job.wait_for_step(20)
    assert started(job)["command"] == TRAINING, "at its first start a run begins with its own command"
    damaged = job.dump()
    job.wait_for_progress(10)
    job.kill_everything()
    damage(job.store / "snapshots" / damaged)

    job.start()
    job.wait_for_progress(10)
    assert started(job)["command"] == RESUMING
    assert started(job)["reason"] == "no snapshot could be restored"
    assert f"no snapshot could be restored; by the cold command: {shlex.join(RESUMING)}" in job.said()
    assert not job.output().startswith("begins at step 0\n")

    taken = job.dump()
    job.wait_for_progress(3)
    job.kill_everything()
    job.start()
    assert job.wait_for_restore()["restored_from"] == taken, "the run goes on under its own command"
    assert job.finish() == 0
    assert job.contents() == undisturbed(TRAINING).contents


def test_a_cold_command_that_cannot_be_run_leaves_everything_as_it_was(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_step(20)
    job.kill_everything()
    (job.work / "plan.txt").write_text("no program")
    files, output, run = job.contents(), job.output(), run_of(job)
    for cold_command, code in (("no-such-program --resume", 127), ("./plan.txt", 126)):
        job.start("--cold-command", cold_command)
        assert job.wait(30) == code
        assert "error: --cold-command: command" in job.said() and "tip: " in job.said()
        assert (job.contents(), job.output(), run_of(job)) == (files, output, run)
    (job.work / "plan.txt").unlink()

    job.start("--cold-command", shlex.join(RESUMING))
    job.wait_for_progress(3)
    assert started(job)["reason"] == "the interrupted run has no snapshot yet"
    assert job.finish() == 0
    assert job.contents() == undisturbed(TRAINING).contents
