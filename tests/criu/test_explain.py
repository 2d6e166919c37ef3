"""Failures provoked for real, and what is told about them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from trial import ROOT_PID, Cell, cell, python, script, until

from criu_train.criu.command import dump_command, restore_command
from criu_train.criu.cure import cure
from criu_train.criu.explain import Explanation, explain
from criu_train.criu.failures import FAILURES, Failure
from criu_train.criu.find import Criu

READY = "\nimport time; open(sys.argv[1] + '/ready', 'w').close(); time.sleep(60)"

IO_URING = """
import ctypes, sys
parameters = ctypes.create_string_buffer(120)
assert ctypes.CDLL(None).syscall(425, 8, parameters) >= 0
"""
USERFAULTFD = """
import ctypes, sys
assert ctypes.CDLL(None).syscall(323, 1) >= 0
"""
PERF_EVENT = """
import ctypes, struct, sys
attributes = struct.pack("=IIQ", 1, 128, 1).ljust(128, b"\\0")
assert ctypes.CDLL(None).syscall(298, attributes, 0, -1, -1, 0) >= 0
"""
OUTSIDE_SOCKET = """
import socket, sys
link = socket.socket(socket.AF_UNIX); link.connect(sys.argv[1] + "/outside")
"""
DELETED_FILE = """
import os, sys
file = open(sys.argv[1] + "/gone", "wb"); file.write(b"x" * (2 << 20)); file.flush(); os.unlink(file.name)
"""
SYSV_SHM = """
import ctypes, sys
libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, 4096, 0o1600)
assert libc.shmat(segment, None, 0); libc.shmctl(segment, 0, None)
"""
NESTED = """
import ctypes, os, sys
if os.fork() == 0:
    assert ctypes.CDLL(None).unshare(0x08000000 if sys.argv[2:] else 0x04000000) == 0
    open(sys.argv[1] + "/nested", "w").close()
    import signal; signal.pause()
while not os.path.exists(sys.argv[1] + "/nested"): pass
"""
TERMINAL = """
import os, sys
terminal = os.open(sys.argv[2], os.O_RDWR | os.O_NOCTTY)
"""
PLAIN = """
import sys
file = open(sys.argv[1] + "/data", "w"); file.write("12345"); file.flush()
"""


@dataclass(frozen=True)
class Place:
    path: Path
    criu: Criu

    @property
    def log(self) -> str:
        return (self.path / "criu.log").read_text(errors="replace")

    def dump(
        self, code: str, *words: str, ghost_limit: int = 1 << 30, leave_running: bool = True, action: str = ""
    ) -> int:
        """Dump a tree that runs this code, and end it."""
        with cell("run", *python(code + READY, str(self.path), *words)) as tree:
            until((self.path / "ready").exists)
            code_of_criu = self.dump_of(tree, ghost_limit=ghost_limit, leave_running=leave_running, action=action)
        cure([], log=self.log)
        return code_of_criu

    def dump_of(self, tree: Cell, *, ghost_limit: int, leave_running: bool, action: str = "") -> int:
        images = self.path / "images"
        images.mkdir(exist_ok=True)
        return tree.criu(
            dump_command(
                self.criu,
                root_pid=ROOT_PID,
                images=images,
                log=self.path / "criu.log",
                action_script=script(self.path / "action", action) if action else None,
                leave_running=leave_running,
                ghost_limit=ghost_limit,
            )
        )

    def restore(self) -> str:
        """A restore that fails; its log."""
        log = self.path / "restore.log"
        with cell("restore", *restore_command(self.criu, images=self.path / "images", log=log)) as made:
            made.init.wait(20)
        return log.read_text(errors="replace")


@pytest.fixture
def here(place: Path, criu: Criu) -> Place:
    return Place(place, criu)


@pytest.mark.criu
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(IO_URING, "io_uring", id="io_uring"),
        pytest.param(USERFAULTFD, "userfaultfd", id="userfaultfd"),
        pytest.param(PERF_EVENT, "perf_event", id="perf_event"),
        pytest.param(DELETED_FILE, "/gone (2097152 bytes) is larger", id="large deleted file"),
        pytest.param(SYSV_SHM, "System V shared memory", id="System V shared memory"),
        pytest.param(NESTED, "namespaces of its own", id="nested namespace"),
    ],
)
def test_a_dump_that_fails_is_explained(here: Place, code: str, expected: str) -> None:
    assert here.dump(code, ghost_limit=1 << 20) != 0
    explained = explain(here.log, 1)
    assert expected in explained.what
    assert explained.tip


@pytest.mark.criu
def test_a_connection_to_a_program_outside_is_explained(here: Place) -> None:
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(here.path / "outside"))
        outside.listen()
        with ThreadPoolExecutor() as others:
            accepted = others.submit(outside.accept)
            assert here.dump(OUTSIDE_SOCKET) != 0
            accepted.result()[0].close()
    assert "program outside" in explain(here.log, 1).what


@pytest.mark.criu
def test_a_terminal_is_explained(here: Place) -> None:
    master, slave = os.openpty()
    try:
        assert here.dump(TERMINAL, os.ttyname(slave)) != 0
    finally:
        os.close(master)
        os.close(slave)
    assert "terminal" in explain(here.log, 1).what


@pytest.mark.criu
def test_a_full_disk_is_explained(here: Place) -> None:
    with cell("run", *python(PLAIN + READY, str(here.path))) as tree:
        until((here.path / "ready").exists)
        images = here.path / "images"
        images.mkdir()
        enter = ["nsenter", "-t", str(tree.init.pid), "-m"]
        subprocess.run([*enter, "mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(images)], check=True)
        assert here.dump_of(tree, ghost_limit=0, leave_running=True) != 0
    assert explain(here.log, 1).what == "the disk is full"


@pytest.mark.criu
def test_a_refused_cut_is_explained(here: Place) -> None:
    assert here.dump(PLAIN, action='test "$CRTOOLS_SCRIPT_ACTION" != post-dump') != 0
    assert "files could not be saved" in explain(here.log, 1).what


@pytest.mark.criu
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda data: data.write_text("123456"), "/data has 6 bytes, the snapshot expects 5", id="grown"),
        pytest.param(lambda data: data.unlink(), "/data is gone since the snapshot", id="gone"),
        pytest.param(lambda data: data.chmod(0o600), "has mode 0100600, the snapshot expects 0100644", id="mode"),
    ],
)
def test_a_restore_that_misses_a_file_is_explained(
    here: Place, change: Callable[[Path], object], expected: str
) -> None:
    assert here.dump(PLAIN, leave_running=False) == 0
    change(here.path / "data")
    assert expected in explain(here.restore(), 1).what


@pytest.mark.criu
def test_a_damaged_image_is_explained(here: Place) -> None:
    assert here.dump(PLAIN, leave_running=False) == 0
    (here.path / "images" / "pstree.img").write_bytes(b"")
    assert explain(here.restore(), 1).what == "the images are damaged"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("(00.03) Error (criu/sockets.c:640): Can't get 1:16 opt: Protocol not available", "too old"),
        ("Error (criu/vdso.c:343): Can't find vDSO/VVAR bounds", "too old"),
        ("(00.1) Error (criu/cr-restore.c:1230): Can't fork for 1005: File exists", "process number 1005 is taken"),
        (
            "(00.1) Error (criu/files-reg.c:2258): Can't link dev/shm/link_remap.19 -> dev/shm/sem.x: No such file or"
            " directory",
            "lacks the content of the deleted file dev/shm/sem.x",
        ),
        ("(00.1) Error (criu/arch/x86/cpu.c:223): CPU instruction capabilities do not match run time", "processor"),
        (
            "(00.1) Error (criu/files-ext.c:98): Can't dump file 9 of that type [20666] (chr 195:255)",
            "GPU",
        ),
        ("(00.1) Error (criu/files-reg.c:1790): Can't lookup mount=24 for fd=0 path=/dev/null", "descriptor 0"),
        ("(10.0) Error (criu/cr-dump.c:1808): Timeout reached. Try to interrupt: 1", "could not be stopped in time"),
        ("(00.1) Error (criu/cr-dump.c:374): Can't get rlimit 0: Operation not permitted", "another user's processes"),
    ],
)
def test_lines_as_they_stand_in_real_logs_are_explained(log: str, expected: str) -> None:
    assert expected in explain(log, 1).what


def test_noise_is_never_the_reason() -> None:
    log = (
        "(00.002217) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory\n"
        "(00.037153) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
        "(00.038000) Error (criu/some.c:1): Something nobody has heard of.\n"
        "(00.056187) Error (criu/cr-dump.c:1975): Dumping FAILED.\n"
    )
    assert explain(log, 1).what == "CRIU failed: Something nobody has heard of"
    alone = "(00.002217) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory\n"
    assert explain(alone, 1).what == "CRIU failed with exit code 1 and logged no reason"


def test_paths_in_lines_that_report_no_error_are_not_taken_for_a_cause() -> None:
    assert "GPU" not in explain("(00.1) Dumping path for /dev/nvidia0-notes.txt\n", 1).what


@pytest.mark.parametrize(
    ("exit_code", "timed_out", "expected"),
    [
        (-9, False, Explanation("CRIU was killed by SIGKILL", "look for an out-of-memory kill in the kernel's log")),
        (
            -9,
            True,
            Explanation(
                "CRIU took too long and was stopped", "allow it more time; the whole log is kept beside the snapshot"
            ),
        ),
        (127, False, Explanation("CRIU could not be executed", "run `criu-train setup`")),
    ],
)
def test_an_end_without_a_word_is_explained(exit_code: int, timed_out: bool, expected: Explanation) -> None:
    assert explain("", exit_code, timed_out=timed_out) == expected


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.what)
def test_every_row_of_the_table_has_a_group_for_each_blank(failure: Failure) -> None:
    blanks = [""] * failure.pattern.groups
    assert failure.what.format(*blanks)
    assert failure.tip.format(*blanks)
    assert not failure.what.endswith(".")
