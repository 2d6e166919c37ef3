"""What breaks around the supervisor must not break the training."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import StartJob
from harness import Job, criu_train, environment, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]


def start_telling(job: Job, write: int) -> None:
    """Start the job with its messages and its output going to a descriptor, which is closed here."""
    job.process = subprocess.Popen(
        criu_train("--store", str(job.store), "run", "--every", "0", "--", *job.command),
        cwd=job.work,
        env=environment(**job.env),
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=write,
        start_new_session=True,
    )
    os.close(write)
    job.wait_for_state("running")


def test_a_reader_of_our_messages_that_goes_away_ends_nothing(place: Path) -> None:
    job = Job(place / "job", workload("plain.py", "--steps", 1000, "--delay", 0.02))
    read, write = os.pipe()
    start_telling(job, write)
    os.close(read)
    job.send(signal.SIGUSR1)
    job.wait_for_snapshot()
    job.wait_for_progress()
    job.send(signal.SIGUSR1)
    job.wait_for_snapshot(after=1)
    job.wait_for_progress()
    assert job.process is not None
    assert job.process.poll() is None
    job.close()


def test_a_reader_that_never_reads_holds_up_nothing(place: Path) -> None:
    job = Job(place / "job", workload("plain.py", "--steps", 1000, "--delay", 0.02))
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    start_telling(job, write)
    job.dump()
    job.wait_for_progress()
    job.send(signal.SIGTERM)
    assert job.wait(40) == 143
    assert job.complete()[-1]["trigger"] == "preempt"
    os.close(read)


def test_an_output_log_above_the_file_limit_still_restores(start_job: StartJob) -> None:
    job = start_job(workload("plain.py", "--steps", 1000, "--delay", 0.02), "--every", "0", "--file-limit", "1K")
    job.wait_for_step(120)
    job.dump()
    job.wait_for_progress(20)
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0


def test_a_restore_by_id_that_fails_leaves_the_current_run_as_it_is(start_job: StartJob) -> None:
    job = start_job(workload("plain.py", "--steps", 600, "--delay", 0.02), "--every", "0")
    job.wait_for_step(10)
    old = job.dump()
    assert job.finish() == 0
    job.start("--fresh")
    job.wait_for_state("running")
    new = job.dump()
    job.kill_everything()
    for pack in (job.store / "snapshots" / old / "packs").iterdir():
        pack.write_bytes(b"")
    assert job.tell("restore", old).code == 125
    job.start()
    assert job.wait_for_restore()["restored_from"] == new
    assert job.finish() == 0


def test_a_stop_is_heard_while_a_dump_hangs(start_job: StartJob) -> None:
    job = start_job(workload("plain.py", "--steps", 2000, "--delay", 0.02), "--every", "0", "--grace", "6s")
    job.wait_for_step(5)
    job.send(signal.SIGUSR1)
    criu = job.criu()
    end = time.monotonic() + 20
    job.send(signal.SIGTERM)
    while job.process is not None and job.process.poll() is None and time.monotonic() < end:
        criu.send_signal(signal.SIGSTOP) if criu.is_running() else None
        time.sleep(0.1)
    assert job.wait(1) == 143


def test_a_second_ctrl_c_is_heard_while_a_dump_hangs(start_job: StartJob) -> None:
    job = start_job(workload("plain.py", "--steps", 2000, "--delay", 0.02), "--every", "0", "--grace", "60s")
    job.wait_for_step(5)
    job.send(signal.SIGUSR1)
    criu = job.criu()
    criu.send_signal(signal.SIGSTOP)
    job.send(signal.SIGINT)
    time.sleep(0.2)
    job.send(signal.SIGINT)
    began = time.monotonic()
    assert job.wait(20) == 130
    assert time.monotonic() - began < 10


def test_a_stop_is_heard_between_two_restarts(start_job: StartJob) -> None:
    job = start_job(workload("plain.py", "--steps", 2000, "--delay", 0.02), "--every", "0")
    job.wait_for_step(5)
    job.dump()
    os.kill(job.wait_for_pid("root_pid"), signal.SIGKILL)
    job.wait_for_state("backoff")
    job.send(signal.SIGTERM)
    assert job.wait(10) == 143


def test_the_lock_frees_itself_once_everything_is_gone(start_job: StartJob) -> None:
    job = start_job(workload("plain.py", "--steps", 2000, "--delay", 0.02), "--every", "0")
    job.wait_for_step(5)
    job.kill_everything()
    again: Job = job.start()
    until(lambda: again.supervisor().get("state") == "running", "the second start to run")
