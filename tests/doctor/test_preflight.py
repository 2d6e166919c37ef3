"""``criu-train doctor --pid`` and ``doctor -- COMMAND``, and the rules that no machine of ours can show for real."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from harness import Told, tell, until, workload

from criu_train.doctor import preflight_descriptors, preflight_ends, preflight_memory
from criu_train.doctor.preflight import _merge, preflight, scan
from criu_train.doctor.preflight_notice import Notice
from criu_train.doctor.preflight_tree import Descriptor, Mount, Tree, read_tree


class Program:
    """A program outside of any cell."""

    def __init__(self, place: Path, *modes: str, **settings: int) -> None:
        self.lines = place / "metrics.jsonl"
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **settings}
        self.process = subprocess.Popen(workload("doomed.py", *modes), cwd=place, start_new_session=True, **streams)
        until(lambda: self.lines.exists() and self.lines.stat().st_size, "the program to be at work")

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        for one in psutil.Process(self.pid).children(recursive=True):
            one.kill()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def program(place: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    started = Program(place, *request.param)
    yield started
    started.end()


def look(tree: Tree, level: str) -> list[str]:
    rules = (preflight_descriptors, preflight_ends, preflight_memory)
    return [notice.what for rule in rules for notice in rule.look(tree) if notice.level == level]


# -- the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [["userfaultfd"]], indirect=True)
def test_a_running_program_that_can_not_be_carried_is_told_with_why_and_tip(program: Program, tmp_path: Path) -> None:
    told = tell("doctor", "--pid", str(program.pid), cwd=tmp_path)
    assert told.code == 125
    lines = told.out.splitlines()
    assert lines[0].startswith("blocks  a task uses userfaultfd, which CRIU can't dump (process ")
    assert [line.strip()[:5] for line in lines[1:3]] == ["why: ", "tip: "]
    assert lines[-1].endswith("snapshots would not work as it is")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", [["loopback+unix-pairs+spawn-pool"]], indirect=True)
def test_a_running_program_is_told_to_machines_too(program: Program, tmp_path: Path) -> None:
    told = tell("doctor", "--json", "--pid", str(program.pid), cwd=tmp_path)
    assert told.code == 0
    content = told.json()
    assert set(content) == {"ok", "findings", "tasks", "memory_bytes"}
    assert content["ok"] is True
    assert content["tasks"] == 4
    assert content["memory_bytes"] > 1 << 20
    assert all(set(one) == {"level", "what", "why", "tip"} for one in content["findings"])
    whats = [one["what"] for one in content["findings"]]
    assert "ends of TCP connections within the training: 2" in whats
    assert "listening TCP sockets: 1" in whats


def test_a_process_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    told = tell("doctor", "--pid", str(1 << 22), cwd=tmp_path)
    assert (told.code, told.err.count("\n")) == (2, 2)
    assert tell("doctor", "--pid", "1", "--", "true", cwd=tmp_path).code == 2
    assert scan([1 << 22]) == ()
    assert preflight([]).ok


def tried(place: Path, *words: str) -> Told:
    """The doctor's own files lie in a directory of this test."""
    (place / "scratch").mkdir()
    (place / "work").mkdir()
    return tell("doctor", *words, cwd=place / "work", env={"TMPDIR": str(place / "scratch")})


@pytest.mark.criu
def test_a_command_is_tried_out_in_a_cell_and_killed(place: Path) -> None:
    told = tried(place, "--for", "1s", "--json", "--", *workload("doomed.py", "stray-with-pipe"))
    assert told.code == 125
    whats = [one["what"] for one in told.json()["findings"] if one["level"] == "blocks"]
    assert len(whats) == 1
    assert whats[0].startswith("a pipe leads to a program outside of the training")
    assert [path.name for path in (place / "work").iterdir()] == ["metrics.jsonl"]  # what it writes it really writes
    assert list((place / "scratch").iterdir()) == []


@pytest.mark.criu
def test_a_command_that_can_be_carried_passes(place: Path) -> None:
    told = tried(place, "--for", "1s", "--", *workload("doomed.py", "event-descriptors+threads"))
    assert told.code == 0
    assert told.out.splitlines()[-1].endswith("snapshots would work")


@pytest.mark.criu
def test_a_command_that_ends_early_is_known_by_what_was_seen_last(place: Path) -> None:
    code = "import time; print('that was all', flush=True); time.sleep(1.5); raise SystemExit(3)"
    began = time.monotonic()
    told = tried(place, "--for", "1m", "--json", "--", sys.executable, "-c", code)
    assert time.monotonic() - began < 30
    assert told.code == 0
    last = told.json()["findings"][-1]
    assert last["level"] == "warns"
    assert "with exit code 3" in last["what"]
    assert "that was all" in last["why"]


@pytest.mark.criu
def test_a_command_that_ends_at_once_or_can_not_be_run_is_a_failure(place: Path) -> None:
    told = tried(place, "--", "sh", "-c", "echo nothing to do")
    assert told.code == 125
    assert "before it could be looked at" in told.err
    assert "nothing to do" in told.err
    assert tell("doctor", "--", "no-such-program", cwd=place).code == 127


@pytest.mark.criu
def test_a_command_does_not_outlive_a_doctor_that_is_killed(place: Path) -> None:
    argv = [sys.executable, "-m", "criu_train", "doctor", "--for", "1m", "--", *workload("doomed.py", "threads")]
    with subprocess.Popen(argv, cwd=place, env={**os.environ, "TMPDIR": str(place)}) as doctor:
        lines = place / "metrics.jsonl"
        until(lambda: lines.exists() and lines.stat().st_size, "the command to be at work")
        init = next(
            one for one in psutil.Process(doctor.pid).children(recursive=True) if "doomed.py" in str(one.cmdline())
        )
        doctor.kill()
        until(lambda: not init.is_running(), "the command to be gone", 10)


# -- rules ---------------------------------------------------------------------------------------------------------


def test_streams_of_a_shell_are_fine_since_a_run_gives_others(place: Path) -> None:
    master, slave = os.openpty()
    started = Program(place, "threads", stdin=slave, stderr=slave, stdout=subprocess.PIPE)
    try:
        found = preflight([started.pid])
        assert found.ok, found.findings
        assert any("standard streams that are a terminal" in one.what for one in found.findings)
    finally:
        started.end()
        assert started.process.stdout is not None
        started.process.stdout.close()
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(("init", "level"), [(None, "warns"), (1, "blocks")])
def test_a_ring_blocks_only_where_nobody_should_have_got_one(init: int | None, level: str) -> None:
    tree = read_tree(os.getpid())
    assert tree is not None
    tree = replace(tree, init=init)
    ring = Descriptor(tree.root.pid, 3, "anon_inode:[io_uring]", "", None)
    for notices in (
        preflight_descriptors._anonymous(tree, ring),
        preflight_memory._mapping(tree, tree.root, ring.link),
    ):
        assert [notice.level for notice in notices] == [level]


@pytest.mark.parametrize("program", [["locked-files"]], indirect=True)
def test_files_of_another_machine_are_told_and_never_asked_for_their_status(program: Program) -> None:
    tree = read_tree(program.pid)
    assert tree is not None
    file = next(one for one in tree.descriptors() if one.link.endswith("/first"))
    mounts = {**tree.mounts, file.mount: Mount("nfs4", "/home", 1, "rw")}
    task = replace(tree.root, descriptors=(replace(file, status=None),))
    assert look(replace(tree, tasks=(task,), mounts=mounts), "warns") == [
        "files are open on a file system of another machine or program: /home (nfs4)"
    ]


@pytest.mark.parametrize("link", ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dri/renderD128", "/dev/kfd"])
@pytest.mark.parametrize("program", [["harmless-devices"]], indirect=True)
def test_a_graphics_card_blocks(program: Program, link: str) -> None:
    tree = read_tree(program.pid)
    assert tree is not None
    null = next(one for one in tree.descriptors() if one.link == "/dev/null")
    task = replace(tree.root, descriptors=(replace(null, link=link),))
    assert look(replace(tree, tasks=(task,)), "blocks") == ["a task holds a GPU that was not moved aside"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/dev/nvidia0", "a task holds a GPU that was not moved aside"),
        ("[uprobes]", "is being probed"),
        ("anon_inode:[perf_event]", "maps memory of a kind that CRIU can't dump: anon_inode:[perf_event]"),
        ("/dmabuf:buffer (deleted)", "maps memory of a kind that CRIU can't dump: dmabuf:buffer"),
        ("/dev/tty", "maps the memory of a device"),
    ],
)
def test_mappings_that_are_more_than_memory_block(path: str, told: str) -> None:
    tree = read_tree(os.getpid())
    assert tree is not None
    (notice,) = preflight_memory._mapping(tree, tree.root, path)
    assert notice.level == "blocks"
    assert told in notice.what


@pytest.mark.parametrize(
    "path", ["/dev/shm/torch_1", "/dev/zero (deleted)", "/memfd:x (deleted)", "[heap]", "/usr/lib/a.so"]
)
def test_mappings_of_memory_and_files_have_nothing_to_tell(path: str) -> None:
    tree = read_tree(os.getpid())
    assert tree is not None
    assert list(preflight_memory._mapping(tree, tree.root, path)) == []


def test_the_same_thing_at_many_places_is_told_once_the_worst_first() -> None:
    notices = [
        Notice("fine", "pipes", "why", count=2),
        Notice("warns", "odd", "why", "tip"),
        *(Notice("blocks", "bad", "why", "tip", f"process {number}") for number in (1, 2, 3, 4, 4, 5)),
        Notice("fine", "pipes", "why"),
    ]
    merged = list(_merge(notices))
    assert [one.level for one in merged] == ["blocks", "warns", "fine"]
    assert merged[0].what == "bad (process 1; process 2; process 3 and 2 more)"
    assert merged[1].what == "odd"
    assert (merged[2].what, merged[2].tip) == ("pipes: 3", "")


def test_a_connection_that_waits_to_be_accepted_is_told(place: Path) -> None:
    code = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname())"
    )
    code += "; open('metrics.jsonl', 'w').write('x'); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=place) as process:
        try:
            lines = place / "metrics.jsonl"
            until(lambda: lines.exists() and lines.stat().st_size, "the connection")
            assert "a connection waits to be accepted" in str(scan([process.pid]))
        finally:
            process.kill()


def test_sockets_in_another_network_namespace_are_seen_from_here(place: Path) -> None:
    code = "import socket, time; p = socket.socketpair(); open('metrics.jsonl', 'w').write('x'); time.sleep(60)"
    with subprocess.Popen(["unshare", "--net", sys.executable, "-c", code], cwd=place) as process:
        try:
            lines = place / "metrics.jsonl"
            until(lambda: lines.exists() and lines.stat().st_size, "the sockets")
            assert "unix sockets within the training: 2" in [one.what for one in scan([process.pid])]
        finally:
            process.kill()
    with socket.socket(socket.AF_UNIX) as ours:  # this thread is where it was
        assert os.stat(f"/proc/self/fd/{ours.fileno()}")
    assert os.readlink("/proc/self/ns/net") == os.readlink("/proc/thread-self/ns/net")


def test_looking_changes_nothing(place: Path) -> None:
    """No descriptor of ours stays open, and none of theirs is gone."""
    started = Program(place, "event-descriptors+unix-pairs+loopback")
    try:
        before = sorted(os.listdir("/proc/self/fd"))
        seen = [one.link for one in _descriptors(started.pid)]
        for _ in range(3):
            assert preflight([started.pid]).ok
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert [one.link for one in _descriptors(started.pid)] == seen
        at_work = started.lines.stat().st_size
        until(lambda: started.lines.stat().st_size > at_work, "the program to go on")
    finally:
        started.end()


def _descriptors(pid: int) -> list[Descriptor]:
    tree = read_tree(pid)
    assert tree is not None
    return list(tree.descriptors())


def test_findings_go_through_json_unharmed() -> None:
    assert json.loads(json.dumps([vars(one) for one in scan([os.getpid()])]))
