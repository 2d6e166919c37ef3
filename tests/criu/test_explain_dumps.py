"""Dumps made to fail for real, and what is told about them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from provoked import PRELUDE, READY, Place, seize, told, without
from trial import cell, python, until

from criu_train.criu.explain import explain
from criu_train.criu.find import Criu

pytestmark = pytest.mark.criu

IO_URING = "parameters = ctypes.create_string_buffer(120); assert libc.syscall(425, 8, parameters) >= 0"
USERFAULTFD = "assert libc.syscall(323, 1) >= 0"
PERF_EVENT = """
import struct
attributes = struct.pack("=IIQ", 1, 128, 1).ljust(128, b"\\0")
assert libc.syscall(298, attributes, 0, -1, -1, 0) >= 0
"""
SECRET_MEMORY = """
import mmap
secret = libc.syscall(447, 0); os.ftruncate(secret, 4096); mapped = mmap.mmap(secret, 4096)
"""
SYSV_SHM = """
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, 4096, 0o1600)
assert libc.shmat(segment, None, 0); libc.shmctl(segment, 0, None)
"""
NESTED = """
if os.fork() == 0:
    assert libc.unshare(int(sys.argv[2])) == 0
    open(here + "/nested", "w").close(); time.sleep(60)
while not os.path.exists(here + "/nested"): pass
"""
IN_FLIGHT = """
listening = socket.create_server(("127.0.0.1", 0)); connected = socket.create_connection(listening.getsockname())
"""
UNIX_IN_FLIGHT = """
listening = socket.socket(socket.AF_UNIX); listening.bind(here + "/listening"); listening.listen()
connected = socket.socket(socket.AF_UNIX); connected.connect(here + "/listening"); connected.send(b"early")
"""
UNREAD = """
import struct
asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); asking.bind((0, 0))
asking.send(struct.pack("=IHHIIB15x", 32, 18, 0x301, 1, 0, 0)); time.sleep(0.2)
"""
CORKED = """
sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sending.setsockopt(17, 1, 1)
sending.connect(("127.0.0.1", 9)); sending.send(b"half")
"""
DELETED = """
file = open(here + "/gone", "wb"); file.write(b"x" * (2 << 20)); file.flush(); os.unlink(file.name)
"""
MOUNTED_OVER = """
os.mkdir(here + "/under"); file = open(here + "/under/file", "w")
assert libc.mount(b"none", (here + "/under").encode(), b"tmpfs", 0, None) == 0
"""
VFORK = """
if libc.syscall(56, 0x4000 | 17, 0, 0, 0, 0) == 0:
    open(here + "/ready", "w").close(); time.sleep(60)
"""
DEAD_LEADER = """
import threading
if os.fork() == 0:
    threading.Thread(target=time.sleep, args=(60,)).start()
    open(here + "/ending", "w").close(); libc.syscall(60, 0)
while not os.path.exists(here + "/ending"): pass
time.sleep(0.2)
"""
OVERLAY = """
for name in ("lower", "upper", "work", "seen"): os.mkdir(f"{here}/{name}")
layers = f"lowerdir={here}/lower,upperdir={here}/upper,workdir={here}/work"
assert libc.mount(b"none", (here + "/seen").encode(), b"overlay", 0, layers.encode()) == 0
os.mkdir(here + "/seen/watched"); watch = libc.inotify_init()
assert libc.inotify_add_watch(watch, (here + "/seen/watched").encode(), 2) >= 0
"""
NOBODY = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"
TRAP = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [5]); os.kill(os.getpid(), 5)"
UNIX_OUTSIDE = "link = socket.socket(socket.AF_UNIX); link.connect(here + '/outside')"
FROM_OUTSIDE = """
link = socket.socket(socket.AF_UNIX); link.connect(here + "/outside")
held = socket.recv_fds(link, 1, 1)[1]; link.close()
"""
PLAIN = "file = open(here + '/data', 'w'); file.write('12345'); file.flush()"
TCP = """
listening = socket.create_server(("127.0.0.1", 0)); connected = socket.create_connection(listening.getsockname())
accepted = listening.accept()
"""
FILTER = (  # a seccomp filter that allows everything
    "import ctypes, os, struct, sys; libc = ctypes.CDLL(None); rule = struct.pack('HBBI', 6, 0, 0, 0x7fff0000);"
    "kept = ctypes.create_string_buffer(rule); program = struct.pack('H6xQ', 1, ctypes.addressof(kept));"
    "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0\n"
)


@pytest.fixture
def here(place: Path, criu: Criu) -> Place:
    return Place(place, criu)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("io-uring", IO_URING),
        ("userfaultfd", USERFAULTFD),
        ("special-descriptor", PERF_EVENT),
        ("strange-mapping", SECRET_MEMORY),
        ("sysv-shm", SYSV_SHM),
        ("in-flight", IN_FLIGHT),
        ("unix-in-flight", UNIX_IN_FLIGHT),
        ("netlink-unread", UNREAD),
        ("corked-datagram", CORKED),
        ("no-second-name", MOUNTED_OVER),
        ("ending-thread", DEAD_LEADER),
        ("pending-trap", TRAP),
        ("watch-unknown", OVERLAY),
        ("other-mounts", "assert libc.unshare(0x20000) == 0"),
        ("device", "held = os.open('/dev/fuse', os.O_RDWR)"),
        ("tun", "held = os.open('/dev/net/tun', os.O_RDWR)"),
        ("pidfd-outside", "held = os.pidfd_open(1)"),
        ("pidfd-thread", "held = libc.syscall(434, os.getpid(), 0o200)"),
        ("packet-pipe", "held = os.pipe2(0o40000); os.write(held[1], b'x')"),
        ("protocol", "held = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)"),
        ("socket-family", "held = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)"),
    ],
)
def test_a_dump_that_fails_is_explained(here: Place, name: str, code: str) -> None:
    assert here.dump(code) != 0
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
    with cell("run", *python(PRELUDE + PLAIN + READY, str(here.path))) as tree:
        until((here.path / "ready").exists)
        here.images.mkdir()
        enter = ["nsenter", "-t", str(tree.init.pid), "-m"]
        subprocess.run([*enter, "mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(here.images)], check=True)
        assert here.dump_of(tree) != 0
    told(here.log, "disk-full")


def test_a_refused_cut_is_explained(here: Place) -> None:
    assert here.dump(PLAIN, action='test "$CRTOOLS_SCRIPT_ACTION" != post-dump') != 0
    told(here.log, "script-refused")


def test_a_killed_criu_is_explained(here: Place) -> None:
    code = here.dump(PLAIN, action='test "$CRTOOLS_SCRIPT_ACTION" != post-dump || kill -9 $PPID')
    assert explain(here.log, code).what == "CRIU was killed by SIGKILL"


def test_images_that_nobody_takes_are_explained(here: Place) -> None:
    assert here.dump(PLAIN, stream=True) != 0
    told(here.said, "image-stream")


def test_another_user_s_limits_that_may_not_be_read_are_explained(here: Place) -> None:
    here.path.chmod(0o777)
    here = here.through(*without("sys_resource"))
    assert here.dump(NOBODY) != 0
    told(here.log, "limits-unreadable")


@pytest.mark.skipif(bool(shutil.which("iptables-restore")), reason="there is an iptables that works")
def test_missing_iptables_are_explained(here: Place) -> None:
    assert replace(here, criu=replace(here.criu, network_lock="iptables")).dump(TCP) != 0
    told(here.log, "iptables")


@pytest.mark.parametrize(
    ("name", "prefix", "code"),
    [
        ("not-privileged", without("sys_admin"), PLAIN),
        ("nftables", without("net_admin"), TCP),
        ("descriptor-limit", ["prlimit", "--nofile=20"], PLAIN),
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
