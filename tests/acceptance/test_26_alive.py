"""A restored training that stands still, though it was at work at its dump, counts as failed; others are left alone."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import pytest
from harness import Job, torchrun, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

StartJob = Callable[..., Job]

STEPS = 5000
TRAINING = workload("stuck.py", STEPS)
RANKS = torchrun(STEPS, script="stuck.py")
LIMIT_S = 3.0
LIMIT = ("--progress-limit", f"{LIMIT_S:g}s")


def stuck_from(job: Job, step: int) -> None:
    written = job.place / "stuck-from.new"
    written.write_text(str(step))
    written.rename(job.place / "stuck-from")  # the training must not read an empty one


def wake(job: Job) -> None:
    """Nothing keeps it any more: the training goes on, and so will others that were stuck.

    It waits in open(2), which a dump interrupts: what is open for no longer than that may be missed.
    """
    (job.place / "stuck-from").unlink(missing_ok=True)
    gate = os.open(job.place / "wake", os.O_RDWR)
    time.sleep(1)
    os.close(gate)


def begun(start_job: StartJob, command: Sequence[str] = TRAINING) -> Job:
    job = start_job(command, "--every", "1h", *LIMIT)
    os.mkfifo(job.place / "wake")
    job.wait_for_step(10)
    return job


def killed(
    start_job: StartJob, snapshots: int = 2, command: Sequence[str] = TRAINING
) -> tuple[Job, list[str], list[int]]:
    """A job that was at work at each dump; the ids of its snapshots, oldest first, and a step before each."""
    job = begun(start_job, command)
    ids, steps = [], []
    for _ in range(snapshots):
        steps.append(job.steps())
        ids.append(job.dump())
        job.wait_for_progress(60)
    job.kill_everything()
    assert [told(job, one)["at_work"] for one in ids] == [True] * snapshots
    return job, ids, steps


def steps_of(job: Job) -> list[int]:
    return [json.loads(line)["step"] for line in (job.work / "metrics.jsonl").read_text().splitlines()]


def told(job: Job, snapshot: str) -> dict[str, Any]:
    return dict(json.loads((job.store / "snapshots" / snapshot / "manifest.json").read_text()))


def events(job: Job, kind: str) -> list[dict[str, Any]]:
    return [event for event in job.events() if event["event"] == kind]


def restores(job: Job) -> list[str]:
    return [event["snapshot"] for event in events(job, "restored")]


def said(job: Job) -> str:
    return " ".join(job.said().split())


@pytest.mark.parametrize("command", [TRAINING, pytest.param(RANKS, marks=pytest.mark.torch)], ids=["one", "ranks"])
def test_an_older_snapshot_is_tried_when_the_newest_stands_still(start_job: StartJob, command: Sequence[str]) -> None:
    job, [older, newest], [_, later] = killed(start_job, command=command)
    stuck_from(job, later)
    job.start()
    assert job.wait_for_restore()["restored_from"] == newest
    until(lambda: restores(job) == [newest, older], "the older one", 60.0)
    (job.place / "stuck-from").unlink()
    job.wait_for_progress(20)
    [stood] = events(job, "stood_still")
    assert (stood["snapshot"], stood["next"]) == (newest, older)
    assert "it is ended, and an older snapshot tried (tip: " in said(job)
    assert job.status()["restarts"] == 1
    assert job.finish() == 0
    assert steps_of(job) == list(range(STEPS))


def test_a_restored_training_that_is_dumped_all_the_time_keeps_what_it_may_go_back_to_and_no_more_than_that(
    start_job: StartJob,
) -> None:
    """With a dump every half second it is never watched for long enough to be sure that it moves."""
    job = start_job(TRAINING, "--every", "0.5s", "--keep", "1")
    os.mkfifo(job.place / "wake")
    job.wait_for_step(10)
    for _ in range(2):
        job.dump()
    job.kill_everything()
    earlier = {one["id"] for one in job.complete()}
    job.start()
    restored = job.wait_for_restore()["restored_from"]
    newest = job.newest()
    until(lambda: job.newest() > newest + 4, "more snapshots", 60.0)
    left = {one["id"] for one in job.complete()}
    assert restored in left
    assert len(left - earlier) <= 2, "the one that is kept, and one that is just being replaced"
    wake(job)
    job.kill_everything()


def test_when_the_older_one_stands_still_as_well_the_newest_is_left_running(start_job: StartJob) -> None:
    job, [oldest, older, newest], _ = killed(start_job, 3)
    stuck_from(job, 0)
    job.start()
    until(lambda: restores(job) == [newest, older, newest], "the newest again", 60.0)
    assert f"as well: back to {newest}, which is left running" in said(job)
    until(lambda: len(events(job, "stood_still")) == 3, "the last word about it")
    time.sleep(LIMIT_S)
    assert restores(job) == [newest, older, newest]
    assert [event["next"] for event in events(job, "stood_still")] == [older, newest, None]
    assert job.status()["state"] == "running"
    assert {one["id"] for one in job.complete()} == {oldest, older, newest}
    wake(job)
    assert job.finish() == 0
    assert steps_of(job) == list(range(STEPS))


def test_without_an_older_one_the_training_is_left_running_with_a_warning(start_job: StartJob) -> None:
    job, [only], _ = killed(start_job, 1)
    stuck_from(job, 0)
    job.start()
    root = job.wait_for_restore()["root_pid"]
    until(lambda: events(job, "stood_still"), "the warning")
    assert "is left running (tip: does it wait for" in said(job)
    time.sleep(LIMIT_S)
    assert (job.status()["root_pid"], restores(job)) == (root, [only])
    wake(job)
    job.wait_for_progress(5)


def test_a_training_that_was_idle_at_its_dump_is_left_alone(start_job: StartJob) -> None:
    job = begun(start_job)
    job.dump()
    stuck_from(job, 0)
    root = psutil.Process(job.wait_for_pid("root_pid"))
    until(lambda: stands(root, job), "the training to stand still")
    idle = job.dump()
    assert told(job, idle)["at_work"] is False
    job.kill_everything()
    job.start("--every", "1s")
    job.wait_for_restore()
    time.sleep(2 * LIMIT_S)
    assert (restores(job), events(job, "stood_still"), events(job, "dump_skipped")) == ([idle], [], [])
    assert job.complete()[-1]["trigger"] == "timer", "an idle training gets its snapshots"
    wake(job)
    assert job.finish() == 0
    assert steps_of(job) == list(range(STEPS))


def stands(process: psutil.Process, job: Job) -> bool:
    before = (job.steps(), process.cpu_times()[:2])
    time.sleep(0.2)
    return (job.steps(), process.cpu_times()[:2]) == before


def test_a_training_that_takes_its_time_is_left_alone_and_gets_no_snapshots_before_it_moves(
    start_job: StartJob,
) -> None:
    job, ids, _ = killed(start_job)
    stuck_from(job, 0)
    job.start("--every", "1s", "--keep", "2")
    job.wait_for_restore()
    until(lambda: events(job, "dump_skipped"), "a time for a snapshot")
    there = job.newest()
    time.sleep(0.3 * LIMIT_S)
    assert job.newest() == there
    left = {marker.parent.name for marker in job.store.glob("snapshots/*/COMPLETE")}  # asking us takes too long here
    wake(job)
    assert left >= set(ids)
    assert job.wait_for_snapshot(after=there)["trigger"] == "timer"
    time.sleep(LIMIT_S)
    assert events(job, "stood_still") == []
    assert restores(job) == [ids[-1]]
    assert len(events(job, "dump_skipped")) == said(job).count("no snapshot is taken by the timer") == 1
    assert job.finish() == 0
    assert steps_of(job) == list(range(STEPS))


def test_whoever_asks_for_a_snapshot_of_one_that_stands_still_gets_it_and_no_other_is_lost(start_job: StartJob) -> None:
    job, ids, _ = killed(start_job)
    stuck_from(job, 0)
    job.start("--keep", "1", "--progress-limit", "1h")
    root = psutil.Process(job.wait_for_restore()["root_pid"])
    until(lambda: stands(root, job), "the training to stand still")
    time.sleep(LIMIT_S)
    asked = job.dump()
    assert told(job, asked)["at_work"] is True, "it still has to move after a restore"
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    assert [one["id"] for one in job.complete()][:3] == [*ids, asked]
    last = job.complete()[-1]
    assert (last["trigger"], told(job, last["id"])["at_work"]) == ("preempt", True)


def test_one_that_was_stopped_on_purpose_does_not_count_as_failed(start_job: StartJob) -> None:
    job, [_, newest], _ = killed(start_job)
    stuck_from(job, 0)
    job.start()
    root = psutil.Process(job.wait_for_restore()["root_pid"])
    root.suspend()
    time.sleep(2 * LIMIT_S)
    assert (restores(job), events(job, "stood_still")) == ([newest], [])
    root.resume()
    wake(job)
    job.wait_for_progress(5)


@pytest.mark.parametrize("option", [("--progress-limit", "0"), ("--max-restarts", "0")])
def test_it_is_left_running_where_that_is_wanted(start_job: StartJob, option: tuple[str, str]) -> None:
    job, [_, newest], _ = killed(start_job)
    stuck_from(job, 0)
    job.start(*option)
    job.wait_for_restore()
    time.sleep(2 * LIMIT_S)
    assert restores(job) == [newest]
    wake(job)
    job.wait_for_progress(5)


def test_whoever_takes_over_one_that_stands_still_just_watches(start_job: StartJob) -> None:
    job, [_, newest], _ = killed(start_job)
    stuck_from(job, 0)
    job.start()
    root = job.wait_for_restore()["root_pid"]
    job.kill_supervisor()
    job.start()
    job.wait_for_state("running")
    time.sleep(2 * LIMIT_S)
    assert (job.status()["root_pid"], restores(job)) == (root, [newest])
    wake(job)
    job.wait_for_progress(5)
