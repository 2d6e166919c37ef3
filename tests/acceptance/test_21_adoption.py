"""The supervisor is no single point of failure: the next one takes the training over as it is."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from conftest import Reference, StartJob
from harness import Job, torchrun, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(240)]

FILES = workload("files.py", "--steps", 2500, "--delay", 0.04)
PLAIN = workload("plain.py", "--steps", 1500, "--delay", 0.02, "--child")


def taken_over(job: Job, *, by: list[str] | None = None) -> None:
    """Another supervisor has the job; root and init are who they were."""
    before = job.supervisor()
    job.start(arguments=by)
    job.wait_for_state("running")
    after = job.status()
    assert (after["root_pid"], after["init_pid"]) == (before["root_pid"], before["init_pid"])
    assert after["supervisor_pid"] != before["supervisor_pid"]


def test_a_supervisor_killed_twenty_times_never_stops_the_training(start_job: StartJob, undisturbed: Reference) -> None:
    job = start_job(FILES, "--every", "2s")
    job.wait_for_step(5)
    root = psutil.Process(job.wait_for_pid("root_pid"))
    for number in range(20):
        if number % 4 == 1:
            job.dump()
        time.sleep(0.1 * (number % 5))
        job.kill_supervisor()
        if number % 3:
            job.wait_for_progress(1)
        taken_over(job)
    job.dump()
    assert root.is_running()
    assert job.finish() == 0
    assert job.contents() == undisturbed(FILES).contents
    assert job.output() == undisturbed(FILES).output
    names = [event["event"] for event in job.events()]
    assert (names.count("adopted"), names.count("started"), names.count("restored")) == (20, 1, 0)


def test_what_was_adopted_can_be_dumped_killed_and_restored_like_any_other(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(FILES, "--every", "1h")
    job.wait_for_step(20)
    job.dump()
    job.wait_for_progress(30)  # files made and removed since
    job.kill_supervisor()
    taken_over(job)
    job.wait_for_progress(20)
    job.dump()
    job.wait_for_progress(20)
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    job.wait_for_progress(20)
    job.kill_supervisor()
    job.wait_for_progress(20)
    taken_over(job)
    assert job.status()["restored_from"]
    job.dump()
    job.wait_for_progress(10)
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == undisturbed(FILES).contents
    assert job.output() == undisturbed(FILES).output


def test_an_adopted_training_hears_signals_and_its_exit_code_passes_through(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(PLAIN, "--every", "1h")
    job.wait_for_step(10)
    job.kill_supervisor()
    taken_over(job, by=["attach", "--every", "1h"])
    assert "taken over" in job.said()
    until(lambda: "step " in job.said(), "the training's lines on the new console")
    job.send(signal.SIGUSR1)
    job.wait_for_snapshot()
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == undisturbed(PLAIN).contents


def test_a_supervisor_killed_while_criu_dumps_is_followed_by_one_whose_dumps_work(
    start_job: StartJob, undisturbed: Reference
) -> None:
    command = [*PLAIN, "--memory", "600"]
    job = start_job(command, "--every", "1h")
    job.wait_for_step(10)
    for _ in range(3):
        job.send(signal.SIGUSR1)
        job.criu()
        time.sleep(0.05)
        job.kill_supervisor()
        taken_over(job)
        job.wait_for_progress(5)
    job.dump()
    job.wait_for_progress(5)
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == undisturbed(command).contents


def test_a_training_that_dies_after_it_was_adopted_is_restarted_from_its_snapshot(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(PLAIN, "--every", "1h")
    job.wait_for_step(10)
    snapshot = job.dump()
    job.kill_supervisor()
    taken_over(job)
    os.kill(job.status()["root_pid"], signal.SIGKILL)
    until(lambda: job.supervisor().get("restarts") == 1 and job.supervisor()["state"] == "running", "a restart")
    assert job.status()["restored_from"] == snapshot
    assert job.finish() == 0
    assert job.contents() == undisturbed(PLAIN).contents


def test_what_was_stopped_on_purpose_stays_so_and_a_lost_log_ends_no_training(start_job: StartJob, place: Path) -> None:
    command = [*PLAIN, "--control", str(place)]
    job = start_job(command, "--every", "1h")
    job.wait_for_step(5)
    (place / "undumpable").touch()
    job.wait_for_progress(3)
    assert job.tell("dump").code == 125
    assert [one["status"] for one in job.snapshots()] == ["incomplete"]
    [child] = psutil.Process(job.wait_for_pid("root_pid")).children()
    child.suspend()
    until(lambda: child.status() == psutil.STATUS_STOPPED, "the child to be stopped")
    job.kill_supervisor()
    (job.store / "output.log").unlink()
    taken_over(job)
    assert child.status() == psutil.STATUS_STOPPED
    child.resume()
    job.wait_for_progress(3)


def test_another_command_or_a_fresh_start_does_not_take_it_over(start_job: StartJob) -> None:
    job = start_job(PLAIN, "--every", "1h")
    job.wait_for_step(5)
    init = job.wait_for_pid("init_pid")
    job.kill_supervisor()
    for call in (["run", "--fresh", "--", *PLAIN], ["run", "--", "sleep", "1"], ["restore", "--latest"]):
        told = job.tell(*call)
        assert (told.code, f"init_pid {init}" in told.text, "criu-train attach" in told.text) == (125, True, True), call
    job.wait_for_progress(3)
    taken_over(job)


def test_there_is_nothing_to_attach_to_while_a_supervisor_lives_or_when_the_training_is_gone(
    start_job: StartJob,
) -> None:
    job = start_job(PLAIN, "--every", "1h")
    job.wait_for_step(5)
    told = job.tell("attach")
    assert told.code == 125 and "in use by the supervisor" in told.text
    job.kill_everything()
    told = job.tell("attach")
    assert told.code == 125 and "no training of this store runs without a supervisor" in told.text


def test_a_training_that_is_to_stop_with_its_supervisor_is_told_so_and_ends(start_job: StartJob) -> None:
    job = start_job(PLAIN, "--every", "1h", "--on-supervisor-loss", "stop", "--grace", "5s")
    job.wait_for_step(5)
    init = job.wait_for_pid("init_pid")
    job.kill_supervisor()
    until(lambda: not psutil.pid_exists(init), "the training to end", 10)
    job.start()
    job.wait_for_state("running")
    assert "the supervisor was lost, then the training went on alone until it was killed by SIGTERM" in job.said()


@pytest.mark.torch
def test_ddp_goes_on_through_the_loss_of_supervisors(start_job: StartJob, undisturbed: Reference) -> None:
    command = torchrun("--steps", 2000, "--delay", 0.03)
    job = start_job(command, "--every", "1h")
    job.wait_for_step(10, "rank1.jsonl")
    for _ in range(3):
        job.kill_supervisor()
        job.wait_for_progress(3, "rank1.jsonl")
        taken_over(job)
        job.dump()
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    assert job.finish(120) == 0
    assert job.contents() == undisturbed(command).contents
