"""Snapshots by steps, by epochs, by the clock and as often as it pays, all in one run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from harness import Job, tell, until, workload

from criu_train.supervisor.interval import USUAL_MTBF_S, daly

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

StartJob = Callable[..., Job]


def dumps(job: Job) -> list[dict[str, Any]]:
    events = job.events() if (job.store / "events.jsonl").exists() else []
    return [event for event in events if event["event"] == "dumped"]


@pytest.mark.parametrize("told_by", ["output", "hooks"])
def test_a_snapshot_comes_after_so_many_steps_whoever_tells_of_them(start_job: StartJob, told_by: str) -> None:
    name = "plain.py" if told_by == "output" else "hooked.py"
    job = start_job(workload(name, "--steps", 4000, "--delay", 0.01), "--every", "1h", "--every-steps", "100")
    until(lambda: len(dumps(job)) >= 3, "three snapshots", 60)
    job.kill_everything()
    taken = dumps(job)
    assert {event["trigger"] for event in taken} == {"step"}
    steps = [event["step"] for event in taken]
    assert steps[0] >= 100 and all(100 <= after - before < 1000 for before, after in itertools.pairwise(steps))
    job.start()
    job.wait_for_restore()
    until(lambda: len(dumps(job)) > len(taken), "a snapshot after the restore", 60)
    event = dumps(job)[-1]
    assert event["trigger"] == "step" and event["step"] >= steps[-1] + 100
    assert job.finish() == 0


def test_a_snapshot_comes_with_each_epoch_and_by_the_clock_as_well(start_job: StartJob, place: Path) -> None:
    program = place / "epochs.py"
    program.write_text(
        "import time\n"
        "for epoch in range(400):\n"
        "    print(f'Epoch {epoch}/400 - loss: {1 / (epoch + 1):.4f}', flush=True)\n"
        "    time.sleep(1.5)\n"
    )
    job = start_job(workload(str(program)), "--every", "4s", "--every-epochs", "3")
    until(lambda: len(dumps(job)) >= 4, "four snapshots", 60)
    assert {event["trigger"] for event in dumps(job)} <= {"timer", "epoch"}
    epochs = [event["epoch"] for event in dumps(job)]
    assert all(0 < after - before <= 4 for before, after in itertools.pairwise(epochs))
    assert "every 4.00 s and every 3 epochs" in job.said()


def test_without_failures_the_next_snapshot_comes_when_the_formula_says(start_job: StartJob) -> None:
    job = start_job(workload("plain.py", "--steps", 4000, "--delay", 0.02), "--every", "auto", "--warmup", "1s")
    first = job.wait_for_snapshot()
    assert first["trigger"] == "trial"
    job.wait_for_state("running")
    due = datetime.fromisoformat(job.status()["next_dump_at"])
    began = datetime.fromisoformat(first["created_at"])
    interval = daly(first["frozen_time_us"] / 1e6, USUAL_MTBF_S)
    assert (due - began).total_seconds() == pytest.approx(interval, rel=0.02, abs=3)
    assert "as often as it pays" in job.said()


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--every", "sometimes", "is not a duration"),
        ("--overhead", "120%", "write it like 1% or 0.01"),
        ("--overhead", "much", "write it like 1% or 0.01"),
        ("--mtbf", "rarely", "is not a duration"),
        ("--every-steps", "0", "x>=1"),
    ],
)
def test_what_is_no_plan_is_refused(place: Path, option: str, value: str, why: str) -> None:
    told = tell("run", option, value, "--", "true", cwd=place)
    assert (told.code, list(place.iterdir())) == (2, [])
    assert why in told.text
