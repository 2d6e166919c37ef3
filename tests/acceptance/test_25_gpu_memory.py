"""GPU memory is moved aside for dumps. A library stands in for NVIDIA's (workloads/libcuda.c): GPUs are rare, and none
fails when a test would like it to. test_24_gpu.py has the real ones."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from harness import WORKLOADS, Job, Undisturbed, descendants, run_undisturbed, until

pytestmark = [pytest.mark.criu, pytest.mark.slow]

STEPS = 400
COMMAND = [sys.executable, str(WORKLOADS / "gpu_memory.py"), str(STEPS)]
StartJob = Callable[..., Job]


@dataclass(frozen=True)
class Cuda:
    """``meetings``: where the library looks for what is to go wrong."""

    meetings: Path
    env: dict[str, str]

    def breaks(self, name: str) -> None:
        (self.meetings / name).touch()

    def heals(self) -> None:
        for path in self.meetings.glob("*-*"):
            path.unlink()


@pytest.fixture
def cuda(place: Path) -> Iterator[Cuda]:
    """The library, and a device of which CRIU knows no more than of a GPU."""
    library, meetings = place / "lib", place / "cuda"
    library.mkdir()
    meetings.mkdir()
    source = WORKLOADS / "libcuda.c"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-pthread", "-o", library / "libcuda.so.1", source], check=True)
    node = Path(f"/dev/nvidia-{place.name}")
    os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(10, misc_device()))
    (meetings / "device").symlink_to(node)
    try:
        yield Cuda(meetings, {"LD_LIBRARY_PATH": str(library), "FAKE_CUDA": str(meetings)})
    finally:
        node.unlink()


def misc_device() -> int:
    """The minor number of a device that anybody can open, whatever it is for."""
    lines = (line.split() for line in Path("/proc/misc").read_text().splitlines())
    known = {name: int(minor) for minor, name in lines}
    return next(known[name] for name in ("loop-control", "fuse", "cpu_dma_latency", "vga_arbiter") if name in known)


@pytest.fixture
def expected(place: Path, cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> Undisturbed:
    with monkeypatch.context() as patch:
        for name, value in cuda.env.items():
            patch.setenv(name, value)
        return run_undisturbed(place / "reference", COMMAND)


@pytest.fixture
def job(start_job: StartJob, cuda: Cuda, expected: Undisturbed) -> Job:
    job = start_job(COMMAND, "--every", "1h", env={**cuda.env, "REST": "0.05"})
    job.wait_for_step(5)
    return job


def same(job: Job, expected: Undisturbed) -> None:
    assert job.finish() == 0, job.history()
    assert job.contents() == expected.contents
    assert len({snapshot["run"] for snapshot in job.complete()}) == 1, "a hidden cold start"


def test_a_training_with_gpu_memory_goes_on_after_a_kill_and_after_sigterm(job: Job, expected: Undisturbed) -> None:
    job.dump()
    job.wait_for_progress(3)
    job.kill_everything()
    job.start().wait_for_restore()
    job.wait_for_progress(3)
    job.dump()
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    job.start().wait_for_restore()
    same(job, expected)


def test_the_pause_that_is_told_is_that_of_the_gpu_memory_too(job: Job, expected: Undisturbed) -> None:
    job.dump()
    (snapshot,) = job.complete()
    manifest = json.loads((job.store / "snapshots" / snapshot["id"] / "manifest.json").read_bytes())
    assert snapshot["frozen_time_us"] == manifest["frozen_time_us"] > manifest["stats"]["frozen_time"]
    same(job, expected)


@pytest.mark.parametrize("call", ["fail-lock", "fail-checkpoint"])
def test_gpu_memory_that_can_not_be_saved_fails_the_dump_and_harms_nothing(
    job: Job, cuda: Cuda, expected: Undisturbed, call: str
) -> None:
    cuda.breaks(call)
    told = job.tell("dump")
    assert told.code != 0
    assert "GPU memory can't be saved: CUDA_ERROR_UNKNOWN" in told.err
    job.wait_for_progress(3)
    cuda.heals()
    job.dump()
    same(job, expected)


def test_a_training_whose_gpu_can_not_be_given_back_goes_on_from_the_snapshot(
    job: Job, cuda: Cuda, expected: Undisturbed
) -> None:
    cuda.breaks("fail-restore")
    snapshot = job.dump()
    until(lambda: any(event["event"] == "died" for event in job.events()), "its end")
    cuda.heals()
    assert job.wait_for_restore()["restored_from"] == snapshot
    assert "could not be given back" in job.said()
    same(job, expected)


def test_a_restore_whose_gpu_memory_can_not_be_put_back_is_a_failed_one(
    job: Job, cuda: Cuda, expected: Undisturbed
) -> None:
    job.dump()
    job.wait_for_progress(3)
    job.kill_everything()
    cuda.breaks("fail-restore")
    job.start("--on-restore-failure", "fail")
    assert job.wait() == 125
    assert "GPU memory could not be restored: CUDA_ERROR_UNKNOWN" in job.said()
    cuda.heals()
    job.start().wait_for_restore()
    same(job, expected)


def helper(job: Job) -> psutil.Process:
    """What moves the GPU memory, while it is at it."""

    def found() -> psutil.Process | None:
        init = psutil.Process(job.wait_for_pid("init_pid"))
        return next((one for one in descendants(init) if one.cmdline()[-1:] == ["aside"]), None)

    process = until(found, "a helper")
    assert process is not None
    return process


def test_a_supervisor_that_dies_with_the_gpu_memory_aside_leaves_a_training_that_goes_on(
    job: Job, cuda: Cuda, expected: Undisturbed
) -> None:
    cuda.breaks("hang-checkpoint")
    job.send(signal.SIGUSR1)
    helper(job)
    job.kill_supervisor()
    cuda.heals()
    job.wait_for_progress(5)
    job.start().wait_for_state("running")
    job.dump()
    same(job, expected)


def test_a_helper_that_is_killed_costs_a_dump_and_nothing_else(job: Job, cuda: Cuda, expected: Undisturbed) -> None:
    cuda.breaks("hang-checkpoint")
    job.send(signal.SIGUSR1)
    killed = helper(job)
    cuda.heals()
    killed.kill()
    job.wait_for_progress(5)
    job.dump()
    same(job, expected)


def test_a_criu_that_is_killed_leaves_a_training_that_has_its_gpu(job: Job, expected: Undisturbed) -> None:
    job.send(signal.SIGUSR1)
    job.criu().kill()
    job.wait_for_progress(5)
    job.dump()
    same(job, expected)


@pytest.mark.parametrize(
    ("then", "said"),
    [("; true", "has GPUs open without CUDA"), ("", "holds GPUs by other means than CUDA")],
    ids=["beside", "itself"],
)
def test_whoever_only_watches_the_gpu_is_named(start_job: StartJob, cuda: Cuda, then: str, said: str) -> None:
    script = f"exec 9<{os.readlink(cuda.meetings / 'device')}; {' '.join(COMMAND)}{then}"
    job = start_job(["bash", "-c", script], "--every", "1h", env={**cuda.env, "REST": "0.05"})
    job.wait_for_step(5)
    told = job.tell("dump")
    assert told.code != 0
    assert "GPU memory can't be saved" in told.err
    assert said in told.err
    job.wait_for_progress(3)
    assert job.finish() == 0


def test_whoever_is_just_beginning_to_use_a_gpu_is_not_disturbed(start_job: StartJob, cuda: Cuda) -> None:
    device = os.readlink(cuda.meetings / "device")
    script = (
        f"import ctypes, os, time; ctypes.CDLL('libcuda.so.1'); held = os.open({device!r}, os.O_RDONLY)\n"
        "open('metrics.jsonl', 'w').write('ready\\n'); time.sleep(1000)"
    )
    job = start_job([sys.executable, "-c", script], "--every", "1h", env=cuda.env)
    job.wait_for_step(1)
    told = job.tell("dump")
    assert told.code != 0
    assert "is just beginning to use a GPU" in told.err
    held = psutil.Process(job.status()["root_pid"])
    assert device in [os.readlink(path) for path in Path(f"/proc/{held.pid}/fd").iterdir()]
    assert held.status() != psutil.STATUS_STOPPED


def test_preflight_knows_that_gpu_memory_is_moved_aside(job: Job) -> None:
    told = job.tell("doctor", "--pid", str(job.status()["root_pid"]), "--json")
    found = told.json()["findings"]
    assert [finding for finding in found if finding["level"] == "blocks" and "GPU" in finding["what"]] == []
    assert any("GPU" in finding["what"] for finding in found if finding["level"] == "fine")
