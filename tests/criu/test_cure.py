"""What a killed CRIU leaves behind, made for real and put right again."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from trial import ROOT_PID, Cell, cell, lines, python, script, until

from criu_train.criu.command import dump_command
from criu_train.criu.cure import cure
from criu_train.criu.find import Criu
from criu_train.criu.nftables import delete_inet_table, inet_tables
from criu_train.doctor import probe_tree

pytestmark = pytest.mark.criu

WAIT = 'test "$CRTOOLS_SCRIPT_ACTION" != post-dump || { touch "$(dirname "$0")/frozen"; sleep 60; }'

QUIET_TREE = """
import os, select, socket, sys
asked, answered = sys.argv[1:]
with socket.create_server(("127.0.0.1", 0)) as listener:
    if os.fork() == 0:
        link = socket.create_connection(listener.getsockname())
        while True:
            select.select([link], [], [])
            link.sendall(link.recv(64).upper())
    link = listener.accept()[0]
while True:
    for line in open(asked):
        link.sendall(line.encode())
        select.select([link], [], [])
        with open(answered, "a") as file:
            file.write(link.recv(64).decode())
"""


def dump_and_kill(criu: Criu, tree: Cell, place: Path, *, held: bool) -> str:
    """A dump whose CRIU is killed while the tree stands still; its log."""
    (place / "images").mkdir()
    command = dump_command(
        criu,
        root_pid=ROOT_PID,
        images=place / "images",
        log=place / "dump.log",
        action_script=script(place / "action", WAIT),
        leave_running=True,
    )
    pids = tree.pids
    with tree.start_criu(command) as nsenter:
        until((place / "frozen").exists)
        if held:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        dying = nsenter.children()[0]
        for process in [dying, *dying.children(recursive=True)]:
            process.kill()
    return (place / "dump.log").read_text()


def tree_command(place: Path) -> list[str]:
    return [sys.executable, "-I", probe_tree.__file__, str(place / "log")]


def test_connections_of_a_tree_whose_criu_was_killed_work_again_after_the_cure(criu: Criu, place: Path) -> None:
    log = place / "log"
    tables = set(inet_tables())
    with cell("run", *tree_command(place)) as tree:
        until(lambda: lines(log) > 5)
        said = dump_and_kill(criu, tree, place, held=True)
        assert set(inet_tables()) - tables
        assert tree.shm("link_remap.*")

        done = cure(tree.pids, log=said)

        stuck_at = lines(log)
        until(lambda: lines(log) > stuck_at + 20)
        assert set(inet_tables()) == tables
        assert not tree.shm("link_remap.*")
        assert len([line for line in done if "repair mode" in line]) == 2
        assert cure(tree.pids, log=said) == []


def test_a_connection_that_rested_while_its_criu_was_killed_by_others_works_again(criu: Criu, place: Path) -> None:
    asked, answered = place / "asked", place / "answered"
    os.mkfifo(asked)
    with cell("run", *python(QUIET_TREE, str(asked), str(answered))) as tree:
        asked.write_text("before\n")
        until(answered.exists)
        said = dump_and_kill(criu, tree, place, held=False)
        asked.write_text("after\n")
        time.sleep(0.3)
        assert answered.read_text() == "BEFORE\n"
        cure(tree.pids, log=said)
        asked.write_text("again\n")
        until(lambda: answered.read_text().endswith("AGAIN\n"))


def test_a_cured_tree_can_be_dumped(criu: Criu, place: Path) -> None:
    with cell("run", *tree_command(place)) as tree:
        until(lambda: lines(place / "log") > 5)
        cure(tree.pids, log=dump_and_kill(criu, tree, place, held=True))
        (place / "again").mkdir()
        command = dump_command(
            criu, root_pid=ROOT_PID, images=place / "again", log=place / "again.log", leave_running=True
        )
        assert tree.criu(command) == 0


def test_a_task_that_was_left_stopped_goes_on(place: Path) -> None:
    with cell("run", *tree_command(place)) as tree:
        until(lambda: lines(place / "log") > 5)
        for pid in tree.pids:
            os.kill(pid, signal.SIGSTOP)
        stopped_at = lines(place / "log")
        assert len(cure(tree.pids, log="")) == len(tree.pids)
        until(lambda: lines(place / "log") > stopped_at + 5)


def test_an_undisturbed_tree_needs_no_cure(place: Path) -> None:
    with cell("run", *tree_command(place)) as tree:
        until(lambda: lines(place / "log") > 5)
        assert cure(tree.pids, log="CRIU run id = 00000000-0000-0000-0000-000000000000") == []


def test_links_to_files_that_the_tree_does_not_hold_stay(place: Path) -> None:
    with cell("run", *tree_command(place)) as tree:
        until(lambda: lines(place / "log") > 5)
        foreign = Path(f"/proc/{tree.init.pid}/root/dev/shm/link_remap.4711")
        foreign.write_bytes(b"another job's")
        assert cure(tree.pids, log="") == []
        assert foreign.exists()


def test_iptables_rules_that_the_log_tells_of_are_deleted_as_they_were_inserted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = (
        "INPUT --protocol tcp -m mark ! --mark 0xC114 --source 127.0.0.1 --sport 80 --destination ::1 --dport 9 -j DROP"
    )
    script(place / "iptables", f'echo "$@" >>"{place}/called"')
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    said = "".join(f"(00.1) \tRunning iptables [iptables {wait} -t filter -I {rule}]\n" for wait in ("-w", ""))
    assert len(cure([], log=said)) == 2
    assert (place / "called").read_text() == f"-w -t filter -D {rule}\n-t filter -D {rule}\n"


def test_processes_that_are_gone_are_passed_over() -> None:
    assert cure([2**22 - 1], log="") == []


def test_deleting_a_table_that_is_not_there_says_so() -> None:
    with pytest.raises(FileNotFoundError):
        delete_inet_table("CRIU-no-such-table")
