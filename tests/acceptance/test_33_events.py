"""events.jsonl tells the history of a run, with its progress, and as documented (start_job looks at every event)."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from harness import Job, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

StartJob = Callable[..., Job]
TRAINING = workload("plain.py", "--steps", 3000, "--delay", 0.02)


def told(job: Job, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in job.events() if event["event"] in kinds]


def latest_step(job: Job) -> int:
    return int(told(job, "progress", "restored")[-1]["step"])


def test_a_run_with_dumps_failures_deaths_and_restores_is_told_from_its_first_step_to_its_last(
    start_job: StartJob,
) -> None:
    job = start_job([*TRAINING, "--control", "."], "--every", "1h", "--prove", "newest")
    job.wait_for_step(3)
    until(lambda: told(job, "progress"), "progress")
    told_before = [latest_step(job)]
    first = job.dump()
    (job.work / "undumpable").touch()
    job.wait_for_progress(3)
    assert job.tell("dump").code == 125
    (job.work / "undumpable").unlink()
    until(lambda: told(job, "proven"), "a trial restore")
    until(lambda: told(job, "progress")[-1]["step"] > 30, "more progress")
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    job.wait_for_progress(3)
    told_before.append(latest_step(job))
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0

    kinds = [event["event"] for event in job.events() if event["event"] != "progress"]
    assert [kind for kind in kinds if kind != "preflight"] == [
        *("started", "dumped", "proven", "dump_failed"),
        *("interrupted", "restore", "restored", "stopping", "dumped", "stopped"),
        *("interrupted", "restore", "restored", "finished"),
    ]
    dumped, last = told(job, "dumped")
    [listed, _] = job.complete()
    manifest = json.loads((job.store / "snapshots" / first / "manifest.json").read_text())
    assert (dumped["snapshot"], dumped["step"]) == (first, manifest["step"])
    for field in ("memory_bytes", "added_bytes", "stored_bytes", "tasks", "frozen_time_us"):
        assert dumped[field] == listed[field] and dumped[field] > 0
    assert [one["step"] for one in told(job, "restored")] == [dumped["step"], last["step"]]
    assert all(one["seconds"] > 0 for one in told(job, "restored"))
    assert len({event["run"] for event in job.events()}) == 1
    times = [event["at"] for event in job.events()]
    assert times == sorted(times)
    # Steps only go back where a restore is told; a dump is told when it is done, with the step at its cut.
    step = -1
    for event in told(job, "progress", "restored"):
        assert event["step"] is not None and (event["event"] == "restored" or event["step"] >= step), event
        step = event["step"]
    for event, before in zip(told(job, "dumped"), told_before, strict=True):
        assert event["step"] is not None and event["step"] >= before, event
    assert told(job, "progress")[-1]["step"] == 2999
