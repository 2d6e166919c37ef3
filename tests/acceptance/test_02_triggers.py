"""Every way to ask for a snapshot gives a complete one, and says which way it was."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from conftest import Reference, StartJob
from harness import Job, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

LONG = workload("plain.py", "--steps", 2000, "--delay", 0.02, "--child")
SHORT = workload("plain.py", "--steps", 300, "--delay", 0.03, "--child")


def only_complete(job: Job) -> list[dict[str, object]]:
    snapshots = job.snapshots()
    assert snapshots
    assert [s["status"] for s in snapshots] == ["complete"] * len(snapshots)
    return snapshots


def test_a_signal_gives_a_snapshot_and_the_training_goes_on(start_job: StartJob) -> None:
    job = start_job(LONG, "--every", "1h")
    job.wait_for_step(5)
    job.send(signal.SIGUSR1)
    snapshot = job.wait_for_snapshot()
    assert snapshot["trigger"] == "signal"
    assert snapshot["command"] == LONG
    assert snapshot["tasks"] == 2
    assert snapshot["frozen_time_us"] > 0
    assert snapshot["memory_bytes"] > 1 << 20
    job.wait_for_progress()
    assert job.status()["last_snapshot"] == snapshot["id"]


def test_a_trial_tells_early_that_snapshots_work(start_job: StartJob) -> None:
    job = start_job(LONG, "--every", "1h", "--warmup", "2s")
    snapshot = job.wait_for_snapshot()
    assert snapshot["trigger"] == "trial"
    assert "to see that it works" in job.said()
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    job.wait_for_progress(120)  # what was restored needs no trial
    assert [one["trigger"] for one in job.snapshots()] == ["trial"]


def test_a_trial_that_fails_tells_so_loudly_and_the_training_goes_on(start_job: StartJob, place: Path) -> None:
    (place / "undumpable").touch()
    command = workload("plain.py", "--steps", 2000, "--delay", 0.02, "--control", place)
    job = start_job(command, "--every", "1h", "--warmup", "1s")
    until(lambda: "SNAPSHOTS OF THIS TRAINING DO NOT WORK" in job.said(), "a loud word")
    assert "userfaultfd" in job.said()
    job.wait_for_progress()


def test_the_timer_gives_one_snapshot_after_another(start_job: StartJob) -> None:
    job = start_job(LONG, "--every", "2s")
    job.wait_for_step(1)
    begin = time.monotonic()
    first = job.wait_for_snapshot()
    second = job.wait_for_snapshot(after=job.newest())
    assert first["trigger"] == second["trigger"] == "timer"
    assert first["id"] < second["id"]
    assert 3 < time.monotonic() - begin < 15
    until(lambda: job.status()["next_dump_at"], "a time for the next dump, which is told between two dumps")


def test_the_dump_command_waits_for_its_snapshot_and_prints_its_id(start_job: StartJob) -> None:
    job = start_job(LONG, "--every", "1h")
    job.wait_for_step(5)
    printed = job.dump()
    [snapshot] = only_complete(job)
    assert snapshot["id"] == printed
    assert snapshot["trigger"] == "manual"


def test_ten_signals_at_once_give_one_or_two_snapshots_and_no_interrupted_one(start_job: StartJob) -> None:
    job = start_job([*LONG, "--memory", "100"], "--every", "1h", "--keep", "20")
    job.wait_for_step(5)
    for _ in range(10):
        job.send(signal.SIGUSR1)
    job.wait_for_snapshot()
    last = job.dump()  # asked for after all of them, so it is done after all of them
    snapshots = only_complete(job)
    assert snapshots[-1]["id"] == last
    assert 1 <= sum(s["trigger"] == "signal" for s in snapshots) <= 2
    assert len(snapshots) <= 3
    assert job.status()["dumps_failed"] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_nothing_at_all_is_lost_when_the_supervisor_is_asked_to_end(
    start_job: StartJob, undisturbed: Reference, number: signal.Signals, code: int
) -> None:
    job = start_job(SHORT, "--every", "1h")
    job.wait_for_step(60)
    job.send(number)
    assert job.wait() == code
    [snapshot] = only_complete(job)
    assert snapshot["trigger"] == "preempt"

    logged = job.steps()
    job.start()
    fewest = logged
    while job.supervisor().get("state") != "finished" and job.process is not None and job.process.poll() is None:
        fewest = min(fewest, job.steps())
        time.sleep(0.005)
    assert job.finish() == 0
    assert fewest == logged, "the restore cut lines off: the training had gone on after the cut"
    assert job.status()["restored_from"] == snapshot["id"]
    expected = undisturbed(SHORT)
    assert job.contents() == expected.contents
    assert job.output() == expected.output


def test_a_second_ctrl_c_ends_everything_at_once(start_job: StartJob) -> None:
    job = start_job([*LONG, "--memory", "500"], "--every", "1h")
    job.wait_for_step(5)
    job.send(signal.SIGINT)
    time.sleep(0.1)
    job.send(signal.SIGINT)
    begin = time.monotonic()
    assert job.wait(20) == 130
    assert time.monotonic() - begin < 10


def test_a_training_that_cannot_be_dumped_gets_the_sigterm_itself(start_job: StartJob, place: Path) -> None:
    (place / "undumpable").touch()
    job = start_job([*LONG, "--control", str(place)], "--every", "1h", "--grace", "20s")
    job.wait_for_step(5)
    job.send(signal.SIGTERM)
    begin = time.monotonic()
    assert job.wait() == 143
    assert time.monotonic() - begin < 15, "it should end by the signal, not at the end of the grace"
    assert [s for s in job.snapshots() if s["status"] == "complete"] == []


def test_a_training_that_ignores_sigterm_and_cannot_be_dumped_ends_with_the_grace(
    start_job: StartJob, place: Path
) -> None:
    (place / "undumpable").touch()
    job = start_job([*LONG, "--control", str(place), "--ignore-term"], "--every", "1h", "--grace", "3s")
    job.wait_for_step(5)
    job.send(signal.SIGTERM)
    begin = time.monotonic()
    assert job.wait() == 143
    assert time.monotonic() - begin < 15


def test_a_lost_terminal_does_not_end_the_training(start_job: StartJob) -> None:
    job = start_job(LONG, "--every", "1h")
    job.wait_for_step(5)
    job.send(signal.SIGHUP)
    job.wait_for_progress(20)
    assert job.dump()
