"""CRIU's own faults (CRIU_FAULT, criu/include/fault-injection.h), and a store that others have filled."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from harness import Job

from faults.disasters import Reference, StartJob
from faults.test_matrix import COMMAND, as_if_nothing_had_been

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(150)]

IN_DUMPS = {1: "before anything", 3: "while pages are written", 5: "when code is put into the tasks"}
IN_RESTORES = {2: "when only the root task is there", 6: "after everything is restored"}
MANY = 10_000


def note(moment: str, disaster: str, outcome: str) -> None:
    if directory := os.environ.get("FAULT_RESULTS"):
        told = {"moment": moment, "disaster": disaster, "outcome": outcome}
        Path(directory, f"{moment}-{disaster}.json").write_text(json.dumps(told))


def with_fault(job: Job, number: int | None) -> None:
    job.env = {name: value for name, value in job.env.items() if name != "CRIU_FAULT"}
    if number is not None:
        job.env["CRIU_FAULT"] = str(number)


@pytest.mark.parametrize("number", IN_DUMPS)
def test_a_fault_of_crius_own_in_a_dump_harms_no_training(
    start_job: StartJob, number: int, undisturbed: Reference
) -> None:
    job = start_job(COMMAND, "--every", "1h", env={"CRIU_FAULT": str(number)})
    job.wait_for_step(5)
    told = job.tell("dump")
    assert told.code == 125, told.text
    assert "tip: " in told.err
    job.wait_for_progress(3)
    assert job.status()["restarts"] == 0
    assert job.finish() == 0
    assert job.contents() == undisturbed(COMMAND).contents
    note("dump", f"criu-fault-{number}", "unharmed")


@pytest.mark.parametrize("number", IN_RESTORES)
def test_a_fault_of_crius_own_in_a_restore_is_a_failed_restore_and_loses_nothing(
    start_job: StartJob, number: int, undisturbed: Reference
) -> None:
    job = start_job(COMMAND, "--every", "1h")
    job.wait_for_step(5)
    job.dump()
    job.wait_for_progress(3)
    job.kill_everything()
    with_fault(job, number)
    job.start("--on-restore-failure", "fail")
    assert job.wait() == 125, job.history()
    with_fault(job, None)
    job.start().wait_for_restore()
    as_if_nothing_had_been(job, undisturbed)
    note("restore", f"criu-fault-{number}", "restored from snapshot 1")


def test_ten_thousand_strange_files_in_the_store_disturb_nobody(start_job: StartJob, undisturbed: Reference) -> None:
    job = start_job(COMMAND, "--every", "1h")
    job.wait_for_step(5)
    for directory in (job.store, job.store / "snapshots"):
        for number in range(MANY // 2):
            (directory / f"strange-{number}").write_bytes(b"x")
    job.dump()
    job.wait_for_progress(3)
    job.kill_everything()
    job.start().wait_for_restore()
    as_if_nothing_had_been(job, undisturbed)
    note("always", "many-files", "restored from snapshot 1")
