"""Dumps made to fail for real, and what is told about them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from programs import (
    CORKED,
    DEAD_LEADER,
    DELETED,
    FILE,
    FILTER,
    FROM_OUTSIDE,
    IN_FLIGHT,
    IO_URING,
    MOUNTED_OVER,
    NESTED,
    NOBODY,
    OVERLAY,
    PERF_EVENT,
    SECRET_MEMORY,
    SYSV_SHM,
    TCP,
    TRAP,
    UNIX_IN_FLIGHT,
    UNIX_OUTSIDE,
    UNREAD,
    USERFAULTFD,
    VFORK,
)
from provoked import PRELUDE, READY, Place, seize, told, without
from trial import cell, python, until

from criu_train.criu.explain import explain
from criu_train.criu.find import Criu

pytestmark = [pytest.mark.criu, pytest.mark.slow]

CASES = {
    "io-uring": IO_URING,
    "userfaultfd": USERFAULTFD,
    "special-descriptor": PERF_EVENT,
    "strange-mapping": SECRET_MEMORY,
    "sysv-shm": SYSV_SHM,
    "in-flight": IN_FLIGHT,
    "unix-in-flight": UNIX_IN_FLIGHT,
    "netlink-unread": UNREAD,
    "corked-datagram": CORKED,
    "no-second-name": MOUNTED_OVER,
    "ending-thread": DEAD_LEADER,
    "pending-trap": TRAP,
    "watch-unknown": OVERLAY,
    "other-mounts": "must(libc.unshare(0x20000))",
    "device": "held = os.open('/dev/fuse', os.O_RDWR)",
    "tun": "held = os.open('/dev/net/tun', os.O_RDWR)",
    "pidfd-outside": "held = os.pidfd_open(1)",
    "pidfd-thread": "held = must(libc.syscall(434, os.getpid(), 0o200))",
    "packet-pipe": "held = os.pipe2(0o40000); os.write(held[1], b'x')",
    "protocol": "held = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
    "socket-family": "held = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
}


@pytest.fixture
def here(place: Path, criu: Criu) -> Place:
    return Place(place, criu)


@pytest.mark.parametrize("name", CASES)
def test_a_dump_that_fails_is_explained(here: Place, name: str) -> None:
    assert here.dump(CASES[name]) != 0
    told(here.log, name)


def test_a_large_deleted_file_is_explained(here: Place) -> None:
    assert here.dump(DELETED, ghost_limit=1 << 20) != 0
    assert "/gone (2097152 bytes)" in told(here.log, "deleted-file-too-large")


@pytest.mark.parametrize(("kind", "flag"), [("ipc", 1 << 27), ("uts", 1 << 26), ("cgroup", 1 << 25), ("user", 1 << 28)])
def test_a_container_inside_is_explained(here: Place, kind: str, flag: int) -> None:
    assert here.dump(NESTED, str(flag)) != 0
    assert f"a {kind} namespace" in told(here.log, "nested-namespace")


def test_a_task_that_can_not_be_stopped_is_explained(here: Place) -> None:
    assert here.dump(VFORK, freeze_limit_s=1) != 0
    told(here.log, "freeze-timeout")


def test_a_traced_task_is_explained(here: Place) -> None:
    with cell("run", *python(PRELUDE + READY, str(here.path))) as tree:
        until((here.path / "ready").exists)
        with subprocess.Popen(seize(tree.pids[0]), stdout=subprocess.PIPE) as tracer:
            assert tracer.stdout and tracer.stdout.readline() == b"0\n"
            assert here.dump_of(tree) != 0
            tracer.kill()
    assert "task 1000" in told(here.log, "traced")


@contextmanager
def outside(here: Place, held: int | None = None) -> Iterator[None]:
    """A program outside of the tree that accepts a connection, and hands a descriptor over."""
    with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor() as others:
        listening.bind(str(here.path / "outside"))
        listening.listen()
        accepted = others.submit(listening.accept)
        if held is not None:
            accepted.add_done_callback(lambda done: socket.send_fds(done.result()[0], [b"x"], [held]))
        yield
        accepted.result()[0].close()


def test_a_connection_to_a_program_outside_is_explained(here: Place) -> None:
    with outside(here):
        assert here.dump(UNIX_OUTSIDE) != 0
    told(here.log, "unix-outside")


def test_a_socket_pair_shared_with_a_program_outside_is_explained(here: Place) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, outside(here, theirs.fileno()):
        assert here.dump(FROM_OUTSIDE) != 0
    assert "program outside" in explain(here.log, 1).what


def test_a_file_that_was_opened_outside_is_explained(here: Place) -> None:
    with (here.path / "file").open("w") as file, outside(here, file.fileno()):
        assert here.dump(FROM_OUTSIDE) != 0
    assert told(here.log, "opened-outside").startswith(f"{here.path}/file (descriptor ")


def test_a_terminal_is_explained(here: Place) -> None:
    master, slave = os.openpty()
    try:
        assert here.dump("terminal = os.open(sys.argv[2], os.O_RDWR | os.O_NOCTTY)", os.ttyname(slave)) != 0
    finally:
        os.close(master)
        os.close(slave)
    told(here.log, "terminal")


def test_a_full_disk_is_explained(here: Place) -> None:
    with cell("run", *python(PRELUDE + FILE + READY, str(here.path))) as tree:
        until((here.path / "ready").exists)
        here.images.mkdir()
        enter = ["nsenter", "-t", str(tree.init.pid), "-m"]
        subprocess.run([*enter, "mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(here.images)], check=True)
        assert here.dump_of(tree) != 0
    told(here.log, "disk-full")


def test_a_refused_cut_is_explained(here: Place) -> None:
    assert here.dump(FILE, action='test "$CRTOOLS_SCRIPT_ACTION" != post-dump') != 0
    told(here.log, "script-refused")


def test_a_killed_criu_is_explained(here: Place) -> None:
    code = here.dump(FILE, action='test "$CRTOOLS_SCRIPT_ACTION" != post-dump || kill -9 $PPID')
    assert explain(here.log, code).what == "CRIU was killed by SIGKILL"


def test_images_that_nobody_takes_are_explained(here: Place) -> None:
    assert here.dump(FILE, stream=True) != 0
    told(here.said, "image-stream")


def test_another_user_s_limits_that_may_not_be_read_are_explained(here: Place) -> None:
    here.path.chmod(0o777)
    here = here.through(*without("sys_resource"))
    assert here.dump(NOBODY) != 0
    told(here.log, "limits-unreadable")


def test_missing_iptables_are_explained(here: Place) -> None:
    without_programs = here.through("env", "PATH=/nowhere")
    assert replace(without_programs, criu=replace(here.criu, network_lock="iptables")).dump(TCP) != 0
    told(here.log, "iptables")


@pytest.mark.alone  # CRIU keeps what it has found out about the kernel in /run, for all
@pytest.mark.parametrize(
    ("name", "prefix", "code"),
    [
        ("not-privileged", without("sys_admin"), FILE),
        ("nftables", without("net_admin"), TCP),
        ("descriptor-limit", ["prlimit", "--nofile=20"], FILE),
        (
            "under-seccomp",
            [sys.executable, "-I", "-c", FILTER + "os.execvp(sys.argv[1], sys.argv[1:])"],
            FILTER,
        ),
    ],
)
def test_a_criu_without_its_rights_is_explained(here: Place, name: str, prefix: list[str], code: str) -> None:
    here = here.through(*prefix)
    assert here.dump(code) != 0
    told(here.log, name)
