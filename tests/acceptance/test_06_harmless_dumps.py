"""Whatever happens to a dump, the training runs on, its connections work, and a later dump succeeds."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Reference, StartJob
from harness import Job, torchrun, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.timeout(180)]

BIG_MIB = 1500
LIMIT = "6s"


def talking(*more: object) -> list[str]:
    """A training that needs its child and its loopback connection in every step."""
    return workload("plain.py", "--steps", 3000, "--delay", 0.02, "--loopback", "--child", *more)


def failures(job: Job) -> int:
    return int(job.status()["dumps_failed"])


def pages_written(job: Job) -> int:
    """Bytes of pages in the newest draft: how far CRIU got."""
    return sum(path.stat().st_size for path in job.store.glob("snapshots/*/images/pages-*") if path.exists())


def assert_explained(job: Job, *words: str) -> None:
    """The failure is on record, in words, and on the console, with a tip."""
    event = next(e for e in reversed(job.events()) if e["kind"] == "dump_failed")
    told = " ".join(str(value) for value in event.values())
    assert event.get("tip"), f"no tip: {event}"
    for word in words:
        assert word in told, f"{word!r} is not in {event}"


def assert_unharmed(job: Job, file: str = "metrics.jsonl") -> None:
    """Steps go on, nothing is stopped, and the next dump gives a snapshot."""
    job.wait_for_progress(5, file)
    root = psutil.Process(job.wait_for_pid("root_pid"))
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    before = job.newest()
    job.dump()
    assert job.newest() > before
    job.wait_for_progress(5, file)


def stop_it_early(job: Job) -> None:
    job.criu().suspend()


def stop_it_while_it_streams(job: Job) -> None:
    process = streaming(job)
    process.suspend()


def kill_it_while_it_streams(job: Job) -> None:
    streaming(job).kill()


def streaming(job: Job) -> psutil.Process:
    """CRIU in the middle of writing pages."""
    before = pages_written(job)
    process = job.criu()
    until(lambda: pages_written(job) > before + (8 << 20) or not process.is_running(), "CRIU writing pages", 30)
    assert process.is_running(), "CRIU was done before it could be disturbed"
    return process


DISASTERS: list[Callable[[Job], None]] = [stop_it_early, stop_it_while_it_streams, kill_it_while_it_streams]


@pytest.mark.parametrize("disaster", DISASTERS, ids=lambda disaster: disaster.__name__)
def test_a_disturbed_criu_harms_neither_the_training_nor_the_next_dump(
    start_job: StartJob, disaster: Callable[[Job], None]
) -> None:
    job = start_job(talking("--memory", BIG_MIB), "--every", "1h", "--dump-timeout", LIMIT)
    job.wait_for_step(5)
    job.send(signal.SIGUSR1)
    disaster(job)
    until(lambda: failures(job) == 1, "the dump to fail", 60)
    assert_explained(job)
    assert_unharmed(job)
    assert job.status()["restarts"] == 0


def test_a_run_whose_criu_was_killed_ends_as_if_nothing_had_happened(
    start_job: StartJob, undisturbed: Reference
) -> None:
    command = workload("plain.py", "--steps", 400, "--delay", 0.02, "--loopback", "--child", "--memory", 800)
    job = start_job(command, "--every", "1h")
    for _ in range(3):
        job.wait_for_progress(10)
        job.send(signal.SIGUSR1)
        streaming(job).kill()
        job.wait_for_state("running")
    assert job.wait() == 0
    assert job.contents() == undisturbed(command).contents


def test_a_descriptor_that_criu_cannot_handle_is_named_and_costs_nothing(start_job: StartJob, place: Path) -> None:
    wish = place / "undumpable"
    wish.touch()
    job = start_job(talking("--control", str(place)), "--every", "1h")
    job.wait_for_step(5)
    told = job.tell("dump")
    assert told.code == 125
    assert "userfaultfd" in told.text
    assert "Traceback" not in told.text
    assert_explained(job, "userfaultfd")
    assert failures(job) == 1
    assert "userfaultfd" in job.said()
    job.wait_for_progress(5)
    wish.unlink()
    job.wait_for_progress(3)
    assert_unharmed(job)


def test_a_failed_dump_is_tried_again_at_the_next_interval(start_job: StartJob, place: Path) -> None:
    wish = place / "undumpable"
    wish.touch()
    job = start_job(talking("--control", str(place)), "--every", "2s")
    until(lambda: failures(job) >= 2, "two dumps to fail", 30)
    assert job.newest() == 0
    wish.unlink()
    assert job.wait_for_snapshot(deadline_s=15)["trigger"] == "timer"


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 120 MiB."""
    disk = place / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120M,mode=700", "small", str(disk)], check=True)
    yield disk
    until(lambda: subprocess.run(["umount", str(disk)], check=False, capture_output=True).returncode == 0, "umount", 10)


def test_a_full_disk_fails_the_dump_and_leaves_room_for_the_next(start_job: StartJob, small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(90 << 20))
    job = start_job(talking("--memory", 60, "--quiet"), "--every", "1h", store=small_disk / "store")
    job.wait_for_step(5)
    told = job.tell("dump")
    assert told.code == 125
    assert "space" in told.text.lower()
    assert_explained(job)
    filler.unlink()
    assert_unharmed(job)
    job.close()


def test_a_supervisor_killed_alone_leaves_the_training_running_and_no_second_copy_starts(
    start_job: StartJob, undisturbed: Reference
) -> None:
    command = workload("plain.py", "--steps", 600, "--delay", 0.02, "--child")
    job = start_job(command, "--every", "1h")
    job.wait_for_step(5)
    job.dump()
    init = job.wait_for_pid("init_pid")
    assert job.process is not None
    job.process.kill()
    job.process.wait()
    job.process = None
    assert job.status()["state"] == "lost"
    job.wait_for_progress(5)

    for call in (["run", "--", *command], ["restore", "--latest"]):
        refused = job.tell(*call)
        assert refused.code == 125
        assert str(init) in refused.text
        assert "Traceback" not in refused.text
    job.wait_for_progress(5)
    psutil.Process(init).kill()
    until(lambda: not psutil.pid_exists(init), "the cell to go")
    job.start()
    job.wait_for_restore()
    assert job.wait() == 0
    assert job.contents() == undisturbed(command).contents


def test_a_supervisor_killed_in_the_middle_of_a_dump_leaves_the_training_running(start_job: StartJob) -> None:
    job = start_job(talking("--memory", BIG_MIB), "--every", "1h")
    job.wait_for_step(5)
    job.send(signal.SIGUSR1)
    streaming(job)
    init = psutil.Process(job.wait_for_pid("init_pid"))
    assert job.process is not None
    job.process.kill()
    job.process.wait()
    job.process = None
    job.wait_for_progress(10)
    assert [s for s in job.snapshots() if s["status"] == "complete"] == []
    init.kill()
    until(lambda: not init.is_running(), "the cell to go")


def test_a_supervisor_can_end_and_start_while_the_training_ends_by_itself(start_job: StartJob) -> None:
    """The training ends while nobody supervises it: the next start knows, and begins a new run."""
    command = workload("plain.py", "--steps", 100, "--delay", 0.02)
    job = start_job(command, "--every", "1h")
    job.wait_for_step(5)
    job.dump()
    assert job.process is not None
    job.process.kill()
    job.process.wait()
    job.process = None
    until((job.work / "weights.json").exists, "the training to end", 30)
    time.sleep(0.5)
    job.start()
    assert job.wait() == 0
    assert job.steps() == 200
    assert job.status()["restored_from"] is None


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("disaster", [stop_it_early, kill_it_while_it_streams], ids=lambda d: d.__name__)
def test_a_disturbed_criu_does_not_hang_a_ddp_job(
    start_job: StartJob, undisturbed: Reference, disaster: Callable[[Job], None]
) -> None:
    command = torchrun("--steps", 400, "--delay", 0.03)
    job = start_job(command, "--every", "1h", "--dump-timeout", LIMIT)
    job.wait_for_step(10, "rank0.jsonl")
    job.send(signal.SIGUSR1)
    disaster(job)
    until(lambda: failures(job) == 1, "the dump to fail", 60)
    for rank in range(2):
        job.wait_for_progress(5, f"rank{rank}.jsonl")
    assert_unharmed(job, "rank0.jsonl")
    assert job.wait(120) == 0
    assert job.contents() == undisturbed(command).contents
