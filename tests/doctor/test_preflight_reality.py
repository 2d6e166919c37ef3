"""What preflight says agrees with what really happens to the same training: dumped, killed, restored by CRIU."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

import pytest
from preflight_trials import (
    StartJob,
    begin,
    findings,
    goes_on_after_a_restore,
    is_killed_after_a_dump,
    program_outside,
    whats,
)

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(90)]

MOUNT, PID, NETWORK, IPC, USER = 0x20000, 1 << 29, 1 << 30, 1 << 27, 1 << 28

# Mode, what it is made of, and what preflight calls it.
CANT_BE_DUMPED = [
    ("userfaultfd", "", "userfaultfd"),
    ("perf-event", "", "perf_event"),
    ("landlock", "", "landlock-ruleset"),
    ("bpf-ring", "", "bpf-map"),
    ("pidfd-outside", "", "a pidfd of a process outside"),
    ("pidfd-thread", "", "a pidfd of a thread"),
    ("packet-pipe", "", "packet mode"),
    ("escaped-poll", "", "polls (epoll)"),
    ("overlay-watch", "", "watches a file"),
    ("message-queue", "", "opened outside of the cell"),
    ("hidden-file", "", "under/file"),
    ("stray-with-socket", "", "by a unix socket"),
    ("mptcp", "", "number 262"),
    ("vsock", "", "AF_VSOCK"),
    ("secret-memory", "", "secretmem"),
    ("sysv-memory", "", "System V shared memory"),
    ("child-apart", str(MOUNT), "a mount namespace of its own"),
    ("child-apart", str(NETWORK), "a network namespace of its own"),
    ("child-apart", str(IPC), "a ipc namespace of its own"),
    ("child-apart", str(USER), "a user namespace of its own"),
    ("grandchild-apart", "", "a pid namespace of its own"),
    ("sandboxed", "", "a pid namespace of its own"),
    ("root-apart", str(MOUNT), "away from the cell's"),
    ("root-apart", str(USER), "away from the cell's"),
    ("traced", "", "can't be stopped"),
    ("dead-leader", "", "without its first thread"),
]


@pytest.mark.parametrize(("mode", "what", "called"), CANT_BE_DUMPED)
def test_what_preflight_calls_blocking_can_not_be_dumped(
    start_job: StartJob, mode: str, what: str, called: str
) -> None:
    assert_blocks(start_job, mode, what, called)


def assert_blocks(start_job: StartJob, mode: str, what: str, called: str) -> None:
    job = begin(start_job, mode, what)
    assert called in whats(findings(job, "blocks"))
    told = job.tell("dump")
    assert told.code == 125, told.text
    assert job.complete() == []
    events = [event for event in job.events() if event["event"] == "preflight"]
    assert any(event["level"] == "blocks" and called in event["what"] for event in events)
    assert "warning: snapshots would not work: " in job.said()


# Of these drivers every kernel has some; by their numbers (proc(5), /proc/misc), as containers lack the names.
DRIVERS = {"fuse": "fuse", "tun": "tun device", "kvm": "kvm", "loop-control": "loop-control"}
DEVICES = [
    (int(number), name)
    for number, name in (line.split() for line in Path("/proc/misc").read_text().splitlines())
    if name in DRIVERS
]


def test_there_is_a_device_to_be_tried() -> None:
    assert DEVICES


@pytest.mark.parametrize(("number", "name"), DEVICES)
def test_a_device_blocks(start_job: StartJob, place: Path, number: int, name: str) -> None:
    path = place / name
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(10, number))
    assert_blocks(start_job, "device", str(path), DRIVERS[name])


def disk(place: Path) -> Path:
    """The first disk of this machine that we may open (a loop device that nobody uses is one, too)."""
    listed = [line.split()[:2] for line in Path("/proc/partitions").read_text().splitlines()[2:]]
    for number, (major, minor) in enumerate((*listed, ("7", "0"))):
        path = place / f"disk{number}"
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(int(major), int(minor)))
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            return path
    raise AssertionError("no disk can be opened here")


def test_a_disk_blocks(start_job: StartJob, place: Path) -> None:
    path = disk(place)
    assert_blocks(start_job, "block-device", str(path), str(path))


def test_a_connection_to_a_program_outside_blocks(start_job: StartJob, place: Path) -> None:
    with program_outside(place / "outside") as path:
        job = begin(start_job, "unix-outside", path)
        (finding,) = findings(job, "blocks")
        assert path in finding.why
        assert "by a unix socket" in finding.what
        assert job.tell("dump").code == 125


@pytest.mark.parametrize("kind", ["file", "socket", "terminal"])
def test_a_descriptor_that_a_program_outside_has_handed_over_blocks(
    start_job: StartJob, place: Path, kind: str
) -> None:
    ours, theirs = socket.socketpair()
    master, slave = os.openpty()
    with (place / "file").open("w") as file, ours, theirs:
        held = {"file": file.fileno(), "socket": theirs.fileno(), "terminal": slave}[kind]
        with program_outside(place / "outside", held) as path:
            job = begin(start_job, "descriptor-from-outside", path)
            assert findings(job, "blocks")
            assert job.tell("dump").code == 125
    os.close(master)
    os.close(slave)


def test_a_terminal_of_a_program_outside_blocks(start_job: StartJob) -> None:
    master, slave = os.openpty()
    job = begin(start_job, "terminal-outside", os.ttyname(slave))
    assert "holds a terminal open" in whats(findings(job, "blocks"))
    assert job.tell("dump").code == 125
    os.close(master)
    os.close(slave)


def test_a_session_without_its_leader_blocks_for_it_can_be_dumped_and_never_restored(start_job: StartJob) -> None:
    job = begin(start_job, "orphaned-session")
    assert "whose leader has ended" in whats(findings(job, "blocks"))
    is_killed_after_a_dump(job)
    job.start("--on-restore-failure", "fail")
    assert job.wait() == 125
    assert "no snapshot could be restored" in job.said()


def test_a_pipe_to_a_program_outside_blocks_for_it_comes_back_without_its_other_end(start_job: StartJob) -> None:
    job = begin(start_job, "stray-with-pipe", "", "--max-restarts", "0")
    assert "a pipe leads to a program outside" in whats(findings(job, "blocks"))
    assert "left the training's tree" in whats(findings(job, "warns"))
    is_killed_after_a_dump(job)
    job.start()
    assert job.wait() == 1
    assert "the pipe has no other end any more" in job.output()


def test_a_file_under_a_write_lease_is_left_alone_and_named(start_job: StartJob) -> None:
    job = begin(start_job, "write-lease", "", "--max-restarts", "0")
    assert "a write lease" in whats(findings(job, "warns"))
    goes_on_after_a_restore(job)
    job.dump()
    job.wait_for_progress(3)
    assert "under a write lease): " + str(job.work / "leased") in job.said().replace("\n", "")


# -- what is carried -----------------------------------------------------------------------------------------------

HEALTHY = [
    "event-descriptors+harmless-devices+pidfd+moved-poll+fanotify+namespace-file+other-process-files+half-a-pipe",
    "inotify+deleted-file+linked-file+locked-files+read-lease+aio-ring+shared-memory",
    "terminal-inside+shell-in-terminal",
    "packet+raw+netlink-watch+loopback+datagrams+unix-pairs",
    "own-session+real-time+stopped+threads",
    "spawn-pool",
]


@pytest.mark.parametrize("modes", HEALTHY)
def test_what_preflight_calls_fine_is_dumped_and_restored(start_job: StartJob, modes: str) -> None:
    job = begin(start_job, modes)
    assert findings(job, "blocks") == []
    assert findings(job, "warns") == []
    goes_on_after_a_restore(job)
    assert "warning" not in job.said()


@pytest.mark.parametrize(
    ("mode", "called"),
    [
        ("sysv-semaphore", "System V semaphores"),
        ("sysv-messages", "System V message queues"),
        ("stray-alone", "has left the training's tree"),
    ],
)
def test_what_preflight_warns_of_goes_on_all_the_same(start_job: StartJob, mode: str, called: str) -> None:
    job = begin(start_job, mode)
    assert findings(job, "blocks") == []
    assert called in whats(findings(job, "warns"))
    goes_on_after_a_restore(job)


def test_the_terminal_that_a_training_was_given_is_fine(start_job: StartJob) -> None:
    job = begin(start_job, "threads", "", "--tty")
    assert findings(job, "blocks") + findings(job, "warns") == []
    assert "terminal that it was given" in whats(findings(job, "fine"))
    goes_on_after_a_restore(job)


def test_datagrams_and_connections_to_programs_outside_are_fine_and_told_by_name(
    start_job: StartJob, place: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log, socket.create_server(("127.0.0.1", 0)) as server:
        log.bind(str(place / "log"))
        log.settimeout(0)
        job = begin(start_job, "datagrams-outside", str(place / "log"))
        assert findings(job, "blocks") + findings(job, "warns") == []
        assert str(place / "log") in whats(findings(job, "fine"))
        port = server.getsockname()[1]
        other = start_job([*job.command[:2], "tcp-outside", str(port)], "--every", "1h", name="other")
        other.wait_for_step(3)
        assert findings(other, "blocks") + findings(other, "warns") == []
        assert f"TCP connections to the outside: 1 (127.0.0.1:{port})" in whats(findings(other, "fine"))
        goes_on_after_a_restore(other)


def test_a_named_pipe_to_a_program_outside_is_opened_again_with_a_warning(start_job: StartJob, place: Path) -> None:
    os.mkfifo(place / "fifo")
    outside = os.open(place / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        job = begin(start_job, "fifo-outside", str(place / "fifo"))
        assert f"{place}/fifo leads to a program outside" in whats(findings(job, "warns"))
        assert findings(job, "blocks") == []
        goes_on_after_a_restore(job)
        assert os.read(outside, 10)
    finally:
        os.close(outside)
