"""A training with a terminal of its own: progress bars survive, each redraw is in the log once, the size follows."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import threading

import pytest
from conftest import StartJob
from harness import Job, criu_train, environment, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

COMMAND = workload("bar.py", "--steps", 600)


def metrics(job: Job) -> list[dict[str, object]]:
    return [json.loads(line) for line in (job.work / "metrics.jsonl").read_text().splitlines()]


def test_a_training_with_a_terminal_is_restored_with_one_and_its_output_is_there_once(start_job: StartJob) -> None:
    whole = start_job(COMMAND, "--every", "1h", "--tty", name="whole")
    assert whole.finish() == 0
    job = start_job(COMMAND, "--every", "1h", "--tty", name="killed")
    for at in (30, 120):
        job.wait_for_step(at)
        job.dump()
        job.wait_for_progress(20)
        job.kill_everything()
        job.start()
        job.wait_for_restore()
    job.wait_for_progress(20)
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == whole.contents()
    drawn = (whole.store / "output.log").read_bytes()
    assert (job.store / "output.log").read_bytes() == drawn
    assert b"\r599/600" in drawn
    assert b"\nepoch 29\n" in drawn
    assert all(one["terminal"] == [True] * 3 and one["foreground"] and one["width"] == 80 for one in metrics(job))


def test_without_the_option_there_is_no_terminal(start_job: StartJob) -> None:
    job = start_job(["sh", "-c", "test -t 1 || test -t 0 || test -t 2 || exit 7"], "--every", "1h")
    assert job.wait() == 7


def test_the_terminal_follows_the_size_of_ours_also_after_a_restore(start_job: StartJob) -> None:
    job = start_job(COMMAND, "--every", "1h", "--tty")  # its own console is a file: 80 columns
    job.wait_for_step(10)
    job.dump()
    job.kill_everything()
    master, slave = pty.openpty()

    def columns(number: int) -> None:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, number, 0, 0))

    def width() -> object:
        return metrics(job)[-1]["width"]

    def read() -> None:
        with contextlib.suppress(OSError):
            while os.read(master, 1 << 16):
                pass

    columns(100)
    job.process = subprocess.Popen(
        [
            "setsid",
            "--ctty",
            *criu_train("--store", str(job.store), "run", "--every", "1h", "--tty", "--", *job.command),
        ],
        cwd=job.work,
        env=environment(**job.env),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until(lambda: width() == 100, "the size of the terminal that it is restored in")
    columns(132)
    until(lambda: width() == 132, "the new size")
    assert job.finish() == 0
    os.close(master)
