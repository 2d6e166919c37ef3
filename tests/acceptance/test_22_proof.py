"""A trial restore tells whether a snapshot works, and nobody but us ever notices it."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from conftest import Reference, StartJob
from harness import Job, torchrun, until, workload

pytestmark = [pytest.mark.alone, pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(400)]

TALKING = workload("plain.py", "--steps", 2500, "--delay", 0.02, "--child", "--loopback", "--listen")


def proven(job: Job, snapshot: str) -> bool | None:
    return next(one["proven"] for one in job.snapshots() if one["id"] == snapshot)


def verify(job: Job, *which: str) -> tuple[bool, list[str]]:
    told = job.tell("snapshot", "verify", "--deep", "--json", *which, limit_s=120)
    assert told.out, told.err
    [result] = told.json()
    assert told.code == (0 if result["ok"] else 1)
    return result["ok"], result["problems"]


def is_tried_again_and_again(job: Job, times: int, file: str = "metrics.jsonl") -> None:
    for number in range(times):
        if number % 5 == 0:
            snapshot = job.dump()
        assert verify(job) == (True, []), job.history()
        assert proven(job, snapshot)
        job.wait_for_progress(1, file)


def test_a_job_with_children_and_sockets_does_not_notice_trials(start_job: StartJob, undisturbed: Reference) -> None:
    job = start_job(TALKING, "--every", "1h")
    job.wait_for_step(10)
    assert proven(job, job.dump()) is None
    is_tried_again_and_again(job, 10)
    assert job.finish() == 0
    assert job.contents() == undisturbed(TALKING).contents


@pytest.mark.torch
@pytest.mark.parametrize(
    ("command", "file"),
    [
        (workload("examples/digits/train.py", "--epochs", 400, "--delay", 0.03), "metrics.jsonl"),
        (torchrun("--steps", 3000, "--delay", 0.03), "rank0.jsonl"),
    ],
    ids=["data loader", "ddp"],
)
def test_trials_beside_a_training_with_workers_leave_it_as_it_is(
    start_job: StartJob, command: Sequence[str], file: str
) -> None:
    job = start_job(command, "--every", "1h")
    job.wait_for_step(10, file)
    is_tried_again_and_again(job, 5, file)


@pytest.mark.torch
@pytest.mark.faults
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    ("command", "file"),
    [
        (workload("examples/digits/train.py", "--epochs", 150, "--delay", 0.12), "metrics.jsonl"),
        (torchrun("--steps", 12_000, "--delay", 0.05), "rank0.jsonl"),
    ],
    ids=["data loader", "ddp"],
)
def test_a_training_that_fifty_trials_went_on_beside_ends_as_the_undisturbed_one(
    start_job: StartJob, command: Sequence[str], file: str, undisturbed: Reference
) -> None:
    """Ten minutes each: ``pytest -m faults tests/acceptance/test_22_proof.py``."""
    job = start_job(command, "--every", "1h")
    job.wait_for_step(10, file)
    is_tried_again_and_again(job, 50, file)
    assert job.status()["restarts"] == 0
    assert job.finish(1200) == 0
    reference = undisturbed([*command[:-1], "0"])  # without its rests
    assert job.contents() == reference.contents
    assert timeless(job.output()) == timeless(reference.output)


def timeless(output: str) -> str:
    """Without the time of day in torch's own warnings."""
    return re.sub(r"^\[W\d{4} [\d:.]+ ", "[W ", output, flags=re.MULTILINE)


def test_a_snapshot_that_cannot_be_restored_any_more_is_told_with_the_reason_and_shown(
    start_job: StartJob, place: Path
) -> None:
    data = place / "data.bin"
    data.write_bytes(bytes(10_000))
    job = start_job([*TALKING, "--mapped", str(data)], "--every", "1h", "--file-limit", "1K")
    job.wait_for_step(10)
    snapshot = job.dump()
    assert verify(job) == (True, [])
    assert "worked" in job.tell("snapshot", "list").out
    aside = data.rename(place / "aside.bin")
    ok, problems = verify(job)
    assert not ok and str(data) in problems[0]
    assert proven(job, snapshot) is False
    assert "failed" in job.tell("snapshot", "list").out
    aside.rename(data)
    assert verify(job) == (True, [])


def test_a_snapshot_with_a_wrong_byte_is_not_even_tried(start_job: StartJob) -> None:
    job = start_job(TALKING, "--every", "1h")
    job.wait_for_step(10)
    pack = next((job.store / "snapshots" / job.dump() / "packs").iterdir())
    damaged = bytearray(pack.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    pack.write_bytes(damaged)
    ok, _ = verify(job)
    assert not ok


def test_an_imported_snapshot_is_tried_as_it_would_be_restored(start_job: StartJob, place: Path) -> None:
    job = start_job(TALKING, "--every", "1h", store=place / "store")
    job.wait_for_step(10)
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    assert job.tell("snapshot", "export", "latest", str(place / "exported")).code == 0
    shutil.rmtree(job.store)
    other = Job(job.place, TALKING, store=place / "other")
    assert other.tell("snapshot", "import", str(place / "exported")).code == 0
    assert verify(other) == (True, [])


def test_when_memory_runs_out_a_trial_goes_first(start_job: StartJob) -> None:
    job = start_job(TALKING, "--every", "1h")
    job.wait_for_step(10)
    job.dump()
    with ThreadPoolExecutor(1) as asking:
        asked = asking.submit(verify, job)
        until(lambda: "1000" in trials(), "a trial that the kernel would choose", 30)
        assert asked.result() == (True, [])


def trials() -> list[str]:
    """How willing the kernel is to kill each process of a trial that goes on now."""
    scores = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if any("proof_cell" in word for word in process.cmdline()) and process.name().startswith("python"):
                scores.append(Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip())
    return scores


def test_run_proves_its_snapshots_and_tells(start_job: StartJob) -> None:
    job = start_job(TALKING, "--every", "1h", "--prove", "every")
    job.wait_for_step(10)
    ids = [job.dump(), job.dump()]
    until(lambda: all(proven(job, one) for one in ids), "both to be proven", 60)
    told = [event for event in job.events() if event["event"] == "proven"]
    assert [(event["snapshot"], event["ok"]) for event in told] == [(one, True) for one in ids]
