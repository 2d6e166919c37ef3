"""The training sees the world as it would without criu-train, and its end is told as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import Reference, StartJob
from harness import environment, tell, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

OURS = {"OLDPWD", "_", "PWD", "SHLVL"}


def surroundings(report: Path) -> dict[str, object]:
    found = dict(json.loads(report.read_text()))
    found["environment"] = {k: v for k, v in found["environment"].items() if k not in OURS}
    return found


def test_environment_directory_user_umask_limits_and_signals_are_the_same(place: Path) -> None:
    direct, supervised = place / "direct", place / "supervised"
    command = workload("surroundings.py")
    shell = 'trap "" HUP USR2 QUIT; umask 027; ulimit -n 512; ulimit -c 0; exec nice -n 3 "$@"'
    for directory, prefix in ((direct, []), (supervised, [sys.executable, "-m", "criu_train", "run", "--"])):
        directory.mkdir()
        subprocess.run(
            ["sh", "-c", shell, "sh", *prefix, *command],
            cwd=directory,
            env=environment(TRAINING_FLAVOUR="vanilla"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=True,
        )
    without, within = surroundings(direct / "report.json"), surroundings(supervised / "report.json")
    assert within.pop("cwd") == str(supervised)
    assert without.pop("cwd") == str(direct)
    assert within["environment"].pop("CRIU_TRAIN_HOOKS").startswith("/run/")  # where criu_train.hooks meets us
    assert within == without


@pytest.mark.parametrize("code", [0, 1, 3, 77])
def test_the_exit_code_passes_through(place: Path, code: int) -> None:
    command = workload("plain.py", "--steps", 2, "--exit-code", code)
    told = tell("run", "--max-restarts", "0", "--", *command, cwd=place)
    assert told.code == code, told.text


def test_a_training_that_dies_before_its_first_snapshot_is_not_restarted(place: Path) -> None:
    command = workload("plain.py", "--steps", 20, "--crash-at", 5, "--delay", 0)
    told = tell("run", "--", *command, cwd=place)
    assert told.code == 128 + signal.SIGSEGV, told.text
    assert (place / "metrics.jsonl").read_text().count("\n") == 6


def test_output_is_shown_live_and_kept_once(start_job: StartJob, undisturbed: Reference) -> None:
    command = workload("plain.py", "--steps", 400, "--delay", 0.02)
    job = start_job(command, "--every", "1h")
    until(lambda: "step 10 " in job.said(), "the training's lines on the console")
    assert job.finish() == 0
    expected = undisturbed(command)
    assert job.output() == expected.output
    shown = [line for line in job.said().splitlines() if line.startswith("step ")]
    assert shown == expected.output.splitlines()


def test_a_training_that_is_killed_by_itself_is_restarted_from_its_snapshot(
    start_job: StartJob, undisturbed: Reference
) -> None:
    command = workload("plain.py", "--steps", 800, "--delay", 0.03, "--child")
    job = start_job(command, "--every", "1h")
    job.wait_for_step(20)
    snapshot = job.dump()
    job.wait_for_progress(10)
    root = job.wait_for_pid("root_pid")
    os.kill(root, signal.SIGKILL)
    until(lambda: job.supervisor().get("restarts") == 1 and job.supervisor()["state"] == "running", "a restart")
    status = job.status()
    assert status["restored_from"] == snapshot
    assert job.finish() == 0
    assert job.contents() == undisturbed(command).contents
    assert job.output() == undisturbed(command).output


def test_a_training_that_always_dies_at_the_same_step_is_given_up(start_job: StartJob) -> None:
    command = workload("plain.py", "--steps", 2000, "--delay", 0.02, "--crash-at", 500)
    job = start_job(command, "--every", "1h", "--max-restarts", "2")
    job.wait_for_step(20)
    older = job.dump()
    job.wait_for_progress(20)
    newer = job.dump()
    assert job.wait() == 128 + signal.SIGSEGV
    assert job.supervisor()["restarts"] == 2
    restored = [event["snapshot"] for event in job.events() if event["event"] == "restored"]
    assert restored == [newer, older]


def test_a_run_that_ended_well_is_followed_by_a_new_one(start_job: StartJob) -> None:
    command = workload("plain.py", "--steps", 300, "--delay", 0.02)
    job = start_job(command, "--every", "1h")
    job.wait_for_step(20)
    job.dump()
    assert job.finish() == 0
    job.start()
    assert job.finish() == 0
    assert job.steps() == 600
    assert job.status()["restored_from"] is None


def test_fresh_starts_a_new_run_of_an_unfinished_one(start_job: StartJob) -> None:
    command = workload("plain.py", "--steps", 300, "--delay", 0.02)
    job = start_job(command, "--every", "1h")
    job.wait_for_step(20)
    job.dump()
    job.kill_everything()
    before = job.steps()
    job.start("--fresh")
    assert job.finish() == 0
    assert job.steps() == before + 300


def test_only_as_many_snapshots_are_kept_as_asked_for(start_job: StartJob) -> None:
    job = start_job(workload("plain.py", "--steps", 2000, "--delay", 0.02), "--every", "1h", "--keep", "2")
    job.wait_for_step(3)
    ids = [job.dump() for _ in range(4)]
    until(lambda: [s["id"] for s in job.snapshots()] == ids[-2:], "the older ones to go")


def test_the_training_leads_a_session_of_its_own_and_holds_nothing_of_ours(start_job: StartJob) -> None:
    job = start_job(workload("plain.py", "--steps", 2000, "--delay", 0.02), "--every", "1h")
    job.wait_for_step(3)
    root = psutil.Process(job.wait_for_pid("root_pid"))
    assert os.getsid(root.pid) == root.pid
    descriptors = {int(entry.name): os.readlink(entry) for entry in Path(f"/proc/{root.pid}/fd").iterdir()}
    assert descriptors.pop(0) == "/dev/null"
    assert descriptors.pop(1) == descriptors.pop(2) == str(job.store / "output.log")
    assert set(descriptors.values()) == {str(job.work / "metrics.jsonl")}
