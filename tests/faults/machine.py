"""What befalls the machine under a job: its clock, its memory, its disks. Each strikes, and returns what heals."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Job, until

from faults.victims import Who, somebody

STRUCK_S = 1.0
MANY = 10_000
MAY_SET_CLOCK = "FAULTS_MAY_SET_CLOCK"
# What makes bytes and names durable; a supervisor does little else to a disk that can go wrong late.
SYNCING = "fsync,fdatasync,rename,renameat,renameat2"
# The first one of a thread may be no disk's: it wakes another thread.
WRITING = "write,pwrite64,fsync"
Heal = Callable[[], None]
Strike = Callable[[Job], Heal]


# -- the clock ----------------------------------------------------------------------------------------------------


def _since_boot_ns() -> int:
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _set_clock(since_boot_ns: int) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_BOOTTIME) + since_boot_ns)


@contextlib.contextmanager
def clock_is_set_right() -> Iterator[None]:
    """Whatever happens meanwhile; everybody on this machine sees what does."""
    if not os.environ.get(MAY_SET_CLOCK):
        pytest.fail(f"not run, since it sets this machine's clock: allow it by {MAY_SET_CLOCK}=1, or -k 'not clock'")
    right_ns = _since_boot_ns()
    try:
        yield
    finally:
        _set_clock(right_ns)


def turn_clock(by_s: int) -> Strike:
    def strike(job: Job) -> Heal:
        right_ns = _since_boot_ns()
        _set_clock(right_ns + by_s * 10**9)

        def heal() -> None:
            try:
                time.sleep(STRUCK_S)
                assert job.status()["state"] != "lost", "the supervisor was taken for another process"
            finally:
                _set_clock(right_ns)

        return heal

    return strike


# -- memory -------------------------------------------------------------------------------------------------------


def _memory_groups() -> tuple[Path, str, str]:
    """Where groups of processes get a limit of memory; the files with the limit, and with who was killed for it."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    if (first / "memory.limit_in_bytes").exists() and os.access(first, os.W_OK):
        return first, "memory.limit_in_bytes", "memory.oom_control"
    with contextlib.suppress(OSError):
        if "memory" in (second / "cgroup.subtree_control").read_text().split() and os.access(second, os.W_OK):
            return second, "memory.max", "memory.events"
    pytest.fail("no control group can limit memory here: this case was not run, leave it out with -k 'not oom'")


def run_out_of_memory(who: Who) -> Strike:
    """The kernel gives the process not one page more, and kills it when it asks for one."""

    def strike(job: Job) -> Heal:
        top, limit, told = _memory_groups()
        [process] = somebody(job, who)
        group = top / f"criu-train-{process.pid}"
        group.mkdir()
        (group / limit).write_text("0")
        (group / "cgroup.procs").write_text(str(process.pid))

        def killed() -> bool:
            return "oom_kill 0" not in (group / told).read_text().splitlines()

        def heal() -> None:
            try:
                until(killed, f"{who.__name__} to need memory\n{job.history()}", 30)
            finally:
                for left in (group / "cgroup.procs").read_text().split():
                    with contextlib.suppress(OSError):
                        (top / "cgroup.procs").write_text(left)
                until(lambda: _removed(group), "the group to be empty", 10)

        return heal

    return strike


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


# -- disks --------------------------------------------------------------------------------------------------------


def fail_with_eio(who: Who, calls: str, after: int = 0) -> Strike:
    """These system calls of one process fail, but for so many of each kind that a thread makes first."""

    def strike(job: Job) -> Heal:
        [process] = somebody(job, who)
        log = job.place / "strace.log"
        call = ["strace", "-f", "--detach-on=execve", "-o", str(log), "-p", str(process.pid)]
        inject = f"inject={calls}:error=EIO:when={after + 1}+"
        tracer = subprocess.Popen(
            [*call, "-e", f"trace={calls}", "-e", inject], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        def traced() -> bool:
            states = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/status")]
            return all(f"TracerPid:\t{tracer.pid}\n" in state for state in states)

        def heal() -> None:
            try:
                until(lambda: "(INJECTED)" in log.read_text(), f"a call to fail\n{job.history()}", 30)
                time.sleep(STRUCK_S)
            finally:
                tracer.terminate()
                tracer.wait(10)

        until(traced, "strace to be at work")
        return heal

    return strike


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _unmount_later(path: Path) -> Heal:
    def heal() -> None:
        time.sleep(STRUCK_S)
        subprocess.run(["umount", "--lazy", str(path)], check=True)

    return heal


def make_read_only(job: Job) -> Heal:
    """For whoever goes by its path: a filesystem in which the training has files open can't be made so as a whole."""
    _mount("--bind", job.store, job.store)
    _mount("-o", "remount,bind,ro", job.store)
    return _unmount_later(job.store)


def mount_another_disk(job: Job) -> Heal:
    _mount("-t", "tmpfs", "-o", "mode=700", "another", job.store)
    return _unmount_later(job.store)


def put_many_files(job: Job) -> Heal:
    for directory in _filled(job):
        for number in range(MANY // 2):
            (directory / f"strange-{number}").write_bytes(b"x")
    return lambda: None


def many_files_are_there(job: Job) -> None:
    for directory in _filled(job):
        assert {path.read_bytes() for path in directory.glob("strange-*")} == {b"x"}
        assert len(list(directory.glob("strange-*"))) == MANY // 2


def _filled(job: Job) -> tuple[Path, Path]:
    return job.store, job.store / "snapshots"
