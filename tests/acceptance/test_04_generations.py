"""A run survives being restored again and again, in surroundings that a reboot and other people have changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Reference, StartJob
from harness import WORKLOADS, Job, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(240)]

GENERATIONS = 5


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A TMPDIR of the job's own (short: sockets are bound in it), so that it can vanish as /tmp does in a reboot."""
    directory = Path(tempfile.mkdtemp(prefix="crt", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def shared_memory_of(job: Job) -> set[Path]:
    """What the job's processes have open or mapped in /dev/shm."""
    found: set[Path] = set()
    root = psutil.Process(job.wait_for_pid("root_pid"))
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(OSError):
            maps = Path(f"/proc/{process.pid}/maps").read_text().split("\n")
            found |= {Path(line[line.index("/dev/shm/") :]) for line in maps if "/dev/shm/" in line}
    return {path for path in found if path.exists()}


def reboot(job: Job, temporary: Path) -> None:
    """Kill everything, and take away what a reboot takes away."""
    entries = shared_memory_of(job)
    job.kill_everything()
    for path in entries:
        path.unlink(missing_ok=True)
    shutil.rmtree(temporary)
    temporary.mkdir()


def damage_the_log(log: Path, generation: int) -> None:
    """What people do to a log between two runs: grown, shrunk, deleted."""
    if generation % 3 == 0:
        with log.open("a") as file:
            file.write("someone wrote this by hand\n")
    elif generation % 3 == 1:
        os.truncate(log, log.stat().st_size // 2)
    else:
        log.unlink()


@contextlib.contextmanager
def pids_taken(job: Job) -> Iterator[None]:
    """Other processes of the host sit on the numbers that the job's processes have in their cell."""
    status = Path(f"/proc/{job.wait_for_pid('root_pid')}/status").read_text()
    number = int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])
    sitters = []
    for pid in range(number, number + 5):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        sitters.append(subprocess.Popen(["sleep", "300"]))
    assert {sitter.pid for sitter in sitters} & set(range(number, number + 5)), "no number could be taken"
    try:
        yield
    finally:
        for sitter in sitters:
            sitter.kill()
            sitter.wait()


def live_through_generations(job: Job, temporary: Path, undisturbed: Reference, stride: int) -> None:
    job.wait_for_step(stride)
    for generation in range(GENERATIONS):
        job.dump()
        job.wait_for_progress(2)
        with pids_taken(job):
            reboot(job, temporary)
            damage_the_log(job.work / "metrics.jsonl", generation)
            job.start()
            job.wait_for_restore()
        job.wait_for_step(stride * (generation + 2))
    assert job.finish(120) == 0
    assert len({snapshot["run"] for snapshot in job.complete()}) == 1
    report = job.tell("report", "--json").json()
    assert (report["state"], report["numbers"]["interruptions"]) == ("finished", GENERATIONS)
    assert job.contents() == undisturbed(job.command).contents


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_multiprocessing_job_lives_through_five_reboots(
    temporary: Path, start_job: StartJob, undisturbed: Reference, method: str
) -> None:
    command = workload("pool.py", "--start-method", method, "--steps", 600, "--renew", 15)
    job = start_job(command, "--every", "1h", env={"TMPDIR": str(temporary)})
    live_through_generations(job, temporary, undisturbed, stride=30)


def test_locks_that_workers_share_work_on_after_a_crash_that_left_shared_memory_behind(
    temporary: Path, start_job: StartJob, undisturbed: Reference
) -> None:
    command = workload("pool.py", "--start-method", "spawn", "--steps", 300, "--renew", 15)
    job = start_job(command, "--every", "1h", env={"TMPDIR": str(temporary)})
    for _ in range(3):
        job.wait_for_progress(12)
        job.dump()
        job.wait_for_progress(8)
        job.kill_everything()
        job.start()
        job.wait_for_restore()
    assert job.finish(120) == 0
    assert job.contents() == undisturbed(command).contents


@pytest.mark.torch
@pytest.mark.alone
def test_a_pytorch_job_with_data_loader_workers_lives_through_five_reboots(
    temporary: Path, start_job: StartJob, undisturbed: Reference
) -> None:
    command = workload("examples/digits/train.py", "--epochs", 20, "--delay", 0.03)
    job = start_job(command, "--every", "1h", env={"TMPDIR": str(temporary)})
    live_through_generations(job, temporary, undisturbed, stride=35)


@pytest.mark.torch
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pytorch_job_with_spawned_workers_lives_through_a_reboot(
    temporary: Path, start_job: StartJob, undisturbed: Reference, method: str
) -> None:
    command = workload(
        "examples/digits/train.py", "--epochs", 16, "--delay", 0.03, "--start-method", method, "--persistent"
    )
    job = start_job(command, "--every", "1h", env={"TMPDIR": str(temporary)})
    job.wait_for_step(20)
    job.dump()
    job.wait_for_progress(5)
    reboot(job, temporary)
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == undisturbed(command).contents


@pytest.mark.torch
def test_two_jobs_side_by_side_are_killed_and_restored_crosswise(start_job: StartJob, undisturbed: Reference) -> None:
    java = shutil.which("java")
    assert java is not None, "the JVM workload needs a JDK"
    torch_command = workload("rested_digits.py", "--epochs", 10, "--delay", 0.1)
    jvm_command = [java, "-XX:+UseSerialGC", "-Xmx128m", str(WORKLOADS / "Descent.java"), "900", "100"]
    torch = start_job(torch_command, "--every", "1h", name="torch")
    torch.wait_for_step(1)  # it takes its time to start
    jvm = start_job(jvm_command, "--every", "1h", name="jvm")
    for job in (torch, jvm):
        job.wait_for_step(10)
        job.dump()
    torch.kill_everything()
    jvm.wait_for_progress(5)
    torch.start()
    torch.wait_for_restore()
    jvm.kill_everything()
    torch.wait_for_progress(5)
    jvm.start()
    jvm.wait_for_restore()
    for job in (torch, jvm):
        job.dump()
        job.kill_everything()
    jvm.start()
    torch.start()
    for job in (torch, jvm):
        job.wait_for_restore()
    for job in (torch, jvm):
        assert job.finish(120) == 0
        assert job.contents() == undisturbed(job.command).contents
