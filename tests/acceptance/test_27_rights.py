"""What a training may do: root's rights without those that concern the machine, through dumps and restores alike."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from harness import Job, criu_train, environment, workload

from criu_train.cell.capabilities import DROPPED

StartJob = Callable[..., Job]

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = workload("plain.py", "--steps", 3000, "--delay", 0.02, "--child")
THREADED = """
import threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
while True:
    open("metrics.jsonl", "a").write("{}\\n"); time.sleep(0.02)
"""
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
MACHINES = sum(1 << number for number in DROPPED.values())
# What Docker gives by default, and what docs/containers.md adds to it.
DOCKER = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,audit_write,"
    "setfcap"
)
ADDED = "sys_admin,sys_ptrace,net_admin,sys_time,dac_read_search"


def rights(status: Path) -> dict[str, int]:
    found = dict(re.findall(r"^(Cap\w+|NoNewPrivs):\s*(\w+)$", status.read_text(), re.MULTILINE))
    return {name: int(found[name], 16) for name in (*SETS, "NoNewPrivs")}


def rights_of_everybody(job: Job) -> list[dict[str, int]]:
    """Of every thread of every process of the training."""
    root = psutil.Process(job.wait_for_pid("root_pid"))
    return [
        rights(task / "status")
        for process in (root, *root.children(recursive=True))
        for task in sorted(Path(f"/proc/{process.pid}/task").iterdir())
    ]


def dumped_killed_and_restored(job: Job) -> None:
    job.wait_for_step(5)
    job.dump()
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    job.wait_for_progress()


@pytest.mark.parametrize("command", [TRAINING, [sys.executable, "-c", THREADED]], ids=["processes", "threads"])
def test_a_training_lacks_what_concerns_the_machine_and_a_restored_one_does_too(
    start_job: StartJob, command: list[str]
) -> None:
    mine = rights(Path("/proc/self/status"))
    assert mine["CapBnd"] & MACHINES, "these tests have nothing to drop themselves"
    job = start_job(command, "--every", "1h")
    job.wait_for_step(5)
    before = rights_of_everybody(job)
    assert len(before) > 1
    for one in before:
        assert one == {name: mine[name] & ~MACHINES for name in SETS} | {"NoNewPrivs": 0}
    dumped_killed_and_restored(job)
    assert rights_of_everybody(job) == before


def test_a_training_that_needs_everything_keeps_it(start_job: StartJob) -> None:
    job = start_job(TRAINING, "--every", "1h", "--capabilities", "keep")
    job.wait_for_step(5)
    before = rights_of_everybody(job)
    assert before[0] == rights(Path("/proc/self/status"))
    dumped_killed_and_restored(job)
    assert rights_of_everybody(job) == before


def test_a_snapshot_with_all_rights_is_restored_with_all_of_them(start_job: StartJob) -> None:
    """As those of versions that dropped none."""
    job = start_job(TRAINING, "--every", "1h", "--capabilities", "keep")
    job.wait_for_step(5)
    before = rights_of_everybody(job)
    job.dump()
    job.kill_everything()
    job.start("--capabilities", "drop")
    job.wait_for_restore()
    job.wait_for_progress()
    assert rights_of_everybody(job) == before
    dumped_killed_and_restored(job)
    assert rights_of_everybody(job) == before


def test_a_training_that_gave_up_every_right_has_none_after_a_restore(start_job: StartJob) -> None:
    job = start_job(["setpriv", "--bounding-set", "-all", *TRAINING], "--every", "1h")
    job.wait_for_step(5)
    assert [one["CapPrm"] | one["CapBnd"] for one in rights_of_everybody(job)] == [0, 0]
    dumped_killed_and_restored(job)
    assert [one["CapPrm"] | one["CapBnd"] for one in rights_of_everybody(job)] == [0, 0]


def only(names: str) -> list[str]:
    """A program that gives these capabilities to what it starts, and no others."""
    return ["setpriv", "--bounding-set", ",".join(["-all", *(f"+{name}" for name in names.split(","))])]


def test_in_a_container_with_few_rights_there_is_less_to_drop_and_all_works_the_same(start_job: StartJob) -> None:
    job = start_job(TRAINING, "--every", "1h", by=only(f"{DOCKER},{ADDED}"))
    job.wait_for_step(5)
    before = rights_of_everybody(job)
    assert before[0]["CapBnd"].bit_count() == len(f"{DOCKER},{ADDED}".split(",")) - 1  # sys_time
    dumped_killed_and_restored(job)
    assert rights_of_everybody(job) == before


def test_rights_that_can_t_be_dropped_are_told_and_there_is_a_way_out(place: Path) -> None:
    few = only(f"{DOCKER},{ADDED}".replace("setpcap,", ""))
    told = by(few, "run", "--", "true", cwd=place)
    assert told.returncode == 125, told.stderr
    assert "the training's rights could not be reduced: Operation not permitted" in told.stderr
    assert "--capabilities keep" in told.stderr
    assert by(few, "run", "--capabilities", "keep", "--", "true", cwd=place).returncode == 0


def by(wrapper: list[str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [*wrapper, *criu_train(*arguments)]
    return subprocess.run(
        argv,
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CLOCK = "import time; time.clock_settime(time.CLOCK_REALTIME, time.time())"


def test_a_training_can_t_set_the_clock_unless_it_keeps_all_its_rights(place: Path) -> None:
    command = ["--", sys.executable, "-c", CLOCK]
    told = by([], "run", *command, cwd=place)
    assert told.returncode == 1
    assert "Operation not permitted" in told.stdout + told.stderr
    assert by([], "run", "--fresh", "--capabilities", "keep", *command, cwd=place).returncode == 0


def test_sudo_and_its_like_go_on_working_in_a_training(place: Path) -> None:
    """Programs with the set-user-id bit: no_new_privs would take that away."""
    program = place / "who"
    shutil.copy("/usr/bin/id", program)
    place.chmod(0o711)
    program.chmod(0o4755)
    told = by([], "run", "--", "setpriv", "--reuid", "65534", "--clear-groups", str(program), cwd=place)
    assert "euid=0(root)" in told.stdout, told
