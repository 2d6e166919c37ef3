"""Somebody sits at a terminal: a restore shows what it is at, and ``status --watch`` shows the run until its end."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from harness import Job, criu_train, environment, workload
from terminals import Terminal, surroundings

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = workload("plain.py", "--steps", 2000, "--delay", 0.02, "--child")
StartJob = Callable[..., Job]


def test_a_restore_shows_what_it_is_at_and_the_run_can_be_watched_from_beside(start_job: StartJob) -> None:
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_progress(7)
    snapshot = job.dump()
    job.kill_everything()
    ours = environment(**job.env)
    call = criu_train("--store", str(job.store), "run", "--every", "1h", "--", *TRAINING)
    with Terminal(call, columns=80, env=ours | {"TERM": "xterm"}, cwd=job.work) as terminal:
        terminal.read_until(rf"restored {snapshot}")
        before = terminal.raw.partition("restored ")[0]
        shown = [piece for piece in before.split("\r\x1b[2K") if "restoring" in piece]
        assert all(snapshot in piece and len(piece) < 80 for piece in shown)
        for phase in ("checking it", "putting files back", "its processes come back"):
            assert any(phase in piece for piece in shown), shown
        assert "\r\x1b[2K" in before.rpartition("its processes come back")[2]
        watch = criu_train("--store", str(job.store), "status", "-w")
        with Terminal(watch, columns=60, env=surroundings(**job.env), cwd=job.work) as beside:
            beside.read_until(rf"(?s)running.*Step.*Loss.*in \d+m.*{snapshot}.*restored from snapshot 1")
            terminal.process.send_signal(signal.SIGTERM)
            assert terminal.read_all() == 143
            assert beside.read_all() == 0
        assert beside.lines[-1].startswith("the run stopped (preempted)")
        assert max(map(len, beside.lines)) <= 60
