"""A training that is watched from outside: metrics, a textfile, and a command for each event."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Job, until, workload
from prometheus_client.parser import text_string_to_metric_families

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

StartJob = Callable[..., Job]
TRAINING = workload("plain.py", "--steps", 3000, "--delay", 0.02)


def values(text: str) -> dict[str, float]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {" ".join([one.name, *(v for k, v in one.labels.items() if k != "store")]): one.value for one in samples}


def test_metrics_and_a_command_follow_a_run_over_its_interruption(start_job: StartJob, place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    textfile = place / "job.prom"

    def metrics() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return values(answer.read().decode())

    outlets = ("--metrics-port", str(port), "--metrics-textfile", str(textfile), "--on-event", f"cat >> {place}/told")
    job = start_job(TRAINING, "--every", "1h", *outlets)
    job.wait_for_step(30)
    job.dump()
    before = until(lambda: (found := metrics()).get("criu_train_steps_per_second") and found, "a speed")
    [snapshot] = job.complete()
    assert before["criu_train_state running"] == 1
    assert 0 <= before["criu_train_last_snapshot_step"] == snapshot["step"]
    assert before["criu_train_pause_seconds_sum"] == pytest.approx(snapshot["frozen_time_us"] / 1e6)
    assert before["criu_train_metric loss"] >= 0
    job.wait_for_step(int(before["criu_train_last_snapshot_step"]) + 100)
    job.kill_everything()

    job.start()
    job.wait_for_restore()
    after = until(lambda: (found := metrics()).get("criu_train_step") and found, "metrics")
    assert after["criu_train_snapshots_total manual"] == 1 == after["criu_train_interruptions_total"]
    assert after["criu_train_restore_duration_seconds_count"] == 1
    assert after["criu_train_lost_steps_total"] > 0 < after["criu_train_lost_seconds_total"]
    assert job.finish() == 0
    at_the_end = values(textfile.read_text())
    assert (at_the_end["criu_train_state finished"], at_the_end["criu_train_exit_code"]) == (1, 0)
    assert at_the_end["criu_train_step"] == 2999

    told = [json.loads(line) for line in (place / "told").read_text().splitlines()]
    assert told == [event for event in job.events() if event["event"] != "progress"]


def test_a_training_goes_on_where_nobody_can_be_told_of_it(start_job: StartJob, place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        job = start_job(
            workload("plain.py", "--steps", 100, "--delay", 0.02),
            *("--metrics-port", str(taken.getsockname()[1]), "--metrics-textfile", str(place / "gone" / "job.prom")),
            *("--on-event", "/nowhere/notify"),
        )
        job.wait_for_step(5)
        job.dump()
        assert job.finish() == 0
    said = " ".join(job.said().split())
    for what in (
        r"metrics can't be had at 127\.0\.0\.1:\d+: Address already in use \(tip: ",
        r"metrics can't be written to \S+: No such file or directory \(tip: ",
        r"--on-event '/nowhere/notify': it ended with exit code 127 \(tip: ",
    ):
        assert len(re.findall(what, said)) == 1, said


def test_a_port_that_is_none_is_refused(place: Path, start_job: StartJob) -> None:
    for port in ("0", "70000", "localhost", "9100x", "::", ""):
        job = start_job(["true"], "--metrics-port", port, name=f"job-{port}")
        assert job.wait() == 2
        assert "ends in no port" in " ".join(job.said().split())
