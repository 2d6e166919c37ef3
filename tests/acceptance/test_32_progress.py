"""Snapshots know the training's step and loss from what it prints, and can be chosen by them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Job, tell, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = workload("plain.py", "--steps", 2000, "--delay", 0.02, "--child")
StartJob = Callable[..., Job]


def told_by_the_output(job: Job, snapshot: str) -> tuple[int, float]:
    """Step and loss of the last line that was whole at the cut."""
    entries = json.loads((job.store / "snapshots" / snapshot / "listing.json").read_text())["entries"]
    size = next(entry["size"] for entry in entries if entry["path"] == str(job.store / "output.log"))
    whole = (job.store / "output.log").read_bytes()[:size].rpartition(b"\n")[0].splitlines()[-1].split()
    return int(whole[1]), float(whole[3])


def three_snapshots(start_job: StartJob) -> Job:
    job = start_job(TRAINING, "--every", "1h")
    for _ in range(3):
        job.wait_for_progress(7)
        job.dump()
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    return job


def test_a_snapshot_is_of_the_step_and_loss_that_its_output_ends_with(start_job: StartJob) -> None:
    job = three_snapshots(start_job)
    listed = job.complete()
    assert len(listed) == 4
    for one in listed:
        step, loss = told_by_the_output(job, one["id"])
        assert (one["step"], one["metrics"]) == (step, {"loss": loss})
    assert [one["step"] for one in listed] == sorted({one["step"] for one in listed})
    table = job.tell("snapshot", "list").out
    assert "Step" in table and "Loss" in table and str(listed[0]["step"]) in table
    assert str(listed[0]["step"]) in job.tell("snapshot", "show", "latest~3").out


@pytest.mark.parametrize("choice", ["step", "loss"])
def test_restore_goes_back_to_a_step_or_to_the_best_one(start_job: StartJob, choice: str) -> None:
    job = three_snapshots(start_job)
    listed = job.complete()
    if choice == "step":
        wanted, call = listed[1], ["--at-step", str(listed[2]["step"] - 1)]
    else:
        wanted = min(reversed(listed), key=lambda one: one["metrics"]["loss"])
        call = ["--best", "loss"]
    job.start(arguments=["restore", *call])
    assert job.wait_for_restore()["restored_from"] == wanted["id"]
    assert job.finish() == 0


def test_a_pattern_of_ones_own_tells_what_nobody_else_prints_so(start_job: StartJob) -> None:
    pattern = r"loss (?P<cost>\d\S*)"
    job = start_job(TRAINING, "--every", "1h", "--progress-regex", pattern)
    job.wait_for_step(5)
    job.dump()
    [one] = job.complete()
    assert one["step"] is None and set(one["metrics"]) == {"cost"}


def test_what_is_no_pattern_or_no_choice_is_refused_with_what_to_do(place: Path) -> None:
    for call, why in (
        (["run", "--progress-regex", "(", "--", "true"], "no regular expression"),
        (["run", "--progress-regex", "loss", "--", "true"], "names no group"),
        (["restore", "--latest", "--best", "loss"], "Name one snapshot"),
        (["restore"], "Name one snapshot"),
    ):
        told = tell(*call, cwd=place)
        assert told.code == 2 and why in told.err, told.text
    assert not (place / ".criu-train").exists()
