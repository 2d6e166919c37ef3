"""The process that takes dumps in and packs them may die, stop, or lack memory, room or time: no training is harmed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from shutil import disk_usage
from typing import Any

import psutil
import pytest
from conftest import Reference, StartJob
from generations import dump, renewing
from harness import Job, until

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING, AT_ONCE = (renewing(steps=600, memory_mib=300, more=["--loopback"], delay_s=delay_s) for delay_s in (0.02, 0))


def archivist(job: Job) -> psutil.Process:
    """The process that takes the images in."""
    assert job.process is not None
    children = psutil.Process(job.process.pid).children()
    return next(child for child in children if any("archive" in word for word in child.cmdline()))


def archivist_that_streams(job: Job) -> psutil.Process:
    """A dump is begun; returned as soon as CRIU has handed over a little of it, and hands over more."""
    assert job.newest() > 0, "only after the first dump there is a process to look at"
    process = archivist(job)
    before = process.io_counters().read_chars
    job.send(signal.SIGUSR1)
    end = time.monotonic() + 30
    while process.io_counters().read_chars < before + (8 << 20):
        assert time.monotonic() < end, "CRIU handed nothing over"
        time.sleep(0.001)
    return process


def stopped_while_it_streams(job: Job) -> psutil.Process:
    """Suspended in the middle of a capture; on a busy machine all may be there before the stop is, so again."""
    for _ in range(10):
        before = job.newest()
        process = archivist_that_streams(job)
        process.suspend()
        time.sleep(0.3)
        newest = max(job.store.glob("snapshots/*/dump.log"), default=None)
        if newest is not None and "Running post-dump scripts" not in newest.read_text(errors="replace"):
            return process
        process.resume()
        job.wait_for_snapshot(after=before)
    raise AssertionError("every capture was over before it could be stopped")


def draft_that_is_packed(job: Job) -> Path:
    """A dump is begun; returned as soon as the training runs on and its capture is being packed."""
    known = {path.parent for path in job.store.glob("snapshots/*/packs")}
    job.send(signal.SIGUSR1)
    until(lambda: {path.parent for path in job.store.glob("snapshots/*/packs")} - known, "packing to begin")
    [draft] = {path.parent for path in job.store.glob("snapshots/*/packs")} - known
    assert not (draft / "COMPLETE").exists(), "packing was done before it could be disturbed"
    return draft


def failure(job: Job, deadline_s: float = 30) -> dict[str, Any]:
    """What the next failed dump leaves on record."""

    def failed() -> list[dict[str, Any]]:
        return [event for event in job.events() if event["event"] == "dump_failed"]

    until(failed, "a dump to fail", deadline_s)
    [event] = failed()
    assert event["reason"] and event["tip"], event
    until(lambda: event["reason"] in " ".join(job.said().split()), "the user to be told")
    return event


def assert_unharmed(job: Job, undisturbed: Reference) -> None:
    """Steps go on, the next dump gives a snapshot, and the end is as if nothing had happened."""
    job.wait_for_progress(5)
    before = job.newest()
    dump(job)
    assert job.newest() > before
    assert job.status()["dumps_failed"] == 1
    assert job.status()["restarts"] == 0
    assert job.finish() == 0
    assert job.contents() == undisturbed(AT_ONCE).contents


@pytest.mark.parametrize("moment", [archivist_that_streams, draft_that_is_packed], ids=["streaming", "packing"])
def test_a_killed_archive_costs_one_snapshot_and_nothing_else(
    start_job: StartJob, undisturbed: Reference, moment: Callable[[Job], object]
) -> None:
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_step(5)
    dump(job)
    first = archivist(job)
    moment(job)
    first.kill()
    told = failure(job)
    assert "died" in told["reason"] or "SIGKILL" in told["reason"], told
    assert [one["status"] for one in job.snapshots()] == ["complete", "incomplete"]
    assert_unharmed(job, undisturbed)
    assert not first.is_running()


AMONG_MANY = 'for one in $(seq 200); do sleep 1000 & done; exec "$@"'


@pytest.mark.parametrize("command", [TRAINING, ["sh", "-c", AMONG_MANY, "sh", *TRAINING]], ids=["alone", "among many"])
def test_an_archive_that_stands_still_costs_no_more_than_the_time_limit(
    start_job: StartJob, undisturbed: Reference, command: list[str]
) -> None:
    """Among many it takes a while to hold them all before CRIU is killed, and CRIU may notice and end by itself."""
    job = start_job(command, "--every", "1h", "--dump-timeout", "1s")
    job.wait_for_step(5)
    dump(job)
    stopped = stopped_while_it_streams(job)
    steps = job.steps()
    began = time.monotonic()
    try:
        told = failure(job, 25)
        assert "time limit" in told["reason"], told
        assert time.monotonic() - began < 20, "1 s, 20 s for each GiB, and what it takes to give up"
        job.wait_for_step(steps + 5)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            stopped.resume()
    assert_unharmed(job, undisturbed)


def fill(filler: Path, left: int) -> None:
    """A file that takes all the room but so many bytes."""
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(fd, 0, disk_usage(filler.parent).free - left)
    os.close(fd)


@pytest.mark.parametrize("small_disk", ["1G"], indirect=True)
def test_a_disk_that_fills_up_while_a_snapshot_is_packed_gets_its_room_back(
    small_disk: Path, start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(TRAINING, "--every", "1h", store=small_disk / "store")
    job.wait_for_step(5)
    draft = draft_that_is_packed(job)
    fill(small_disk / "filler", 120 << 20)
    told = failure(job)
    assert "full" in told["reason"], told
    [snapshot] = job.snapshots()
    assert snapshot["status"] == "incomplete"
    assert job.tell("snapshot", "show", draft.name, "--json").json()["reason"] == told["reason"]
    left = [path for path in draft.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in left) < 1 << 20, left
    (small_disk / "filler").unlink()
    assert_unharmed(job, undisturbed)


@pytest.mark.parametrize("small_disk", ["1G"], indirect=True)
def test_a_disk_that_fills_up_while_a_capture_goes_to_it_is_told_as_such(
    small_disk: Path, start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(TRAINING, "--every", "1h", "--memory-limit", "0", store=small_disk / "store")
    job.wait_for_step(5)
    job.send(signal.SIGUSR1)
    criu = job.criu()
    criu.suspend()
    fill(small_disk / "filler", 100 << 20)
    criu.resume()
    assert "full" in failure(job)["reason"]
    (small_disk / "filler").unlink()
    assert_unharmed(job, undisturbed)


def test_sigterm_while_a_snapshot_is_packed_in_the_background_gives_both_snapshots_in_time(
    start_job: StartJob, undisturbed: Reference
) -> None:
    grace_s = 20.0
    job = start_job(TRAINING, "--every", "1h", "--grace", f"{grace_s:g}s")
    job.wait_for_step(5)
    draft_that_is_packed(job)
    job.send(signal.SIGTERM)
    began = time.monotonic()
    assert job.newest() == 0, "it came too late"
    assert job.wait() == 143
    assert time.monotonic() - began < grace_s
    assert [(one["trigger"], one["status"]) for one in job.snapshots()] == [
        ("signal", "complete"),
        ("preempt", "complete"),
    ]
    job.start()
    assert job.wait_for_restore()["restored_from"] == job.snapshots()[-1]["id"]
    assert job.finish() == 0
    assert job.contents() == undisturbed(AT_ONCE).contents
    assert job.output() == undisturbed(AT_ONCE).output


@pytest.mark.parametrize("limit", ["16M", "0"])
def test_what_memory_may_not_hold_goes_to_the_disk_and_is_told(
    start_job: StartJob, undisturbed: Reference, limit: str
) -> None:
    job = start_job(TRAINING, "--every", "1h", "--memory-limit", limit)
    job.wait_for_step(20)
    snapshot = dump(job)
    [dumped] = [event for event in job.events() if event["event"] == "dumped"]
    assert any("--memory-limit" in note for note in dumped["notes"]), dumped
    assert "--memory-limit" in job.said()
    spilled = job.tell("snapshot", "show", snapshot, "--json").json()["manifest"]["spilled_bytes"]
    assert spilled > 280 << 20
    assert job.tell("snapshot", "verify", snapshot).code == 0
    assert list(job.store.rglob(".spill")) == []
    job.wait_for_progress(5)
    job.kill_everything()
    job.start()
    assert job.wait_for_restore()["restored_from"] == snapshot
    assert job.finish() == 0
    assert job.contents() == undisturbed(AT_ONCE).contents
