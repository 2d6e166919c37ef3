"""A command that is run for each event, and what it can't do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import cast

import pytest
from harness import until
from listeners import Warned

from criu_train.store.events import EventLog
from criu_train.supervisor.on_event import OnEvent
from criu_train.supervisor.reporter import Reporter


@pytest.fixture
def warned() -> Warned:
    return Warned()


def run(command: str, warned: Warned, *kinds: str, limit_s: float = 5.0, end_s: float = 5.0) -> None:
    on_event = OnEvent(command, cast(Reporter, warned), limit_s=limit_s, end_s=end_s)
    log = EventLog(Path("/dev/null"))
    log.listeners.append(on_event.hear)
    for kind in kinds:
        log.append(kind)
    on_event.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_it_gets_each_event_once_and_in_order_but_no_progress(tmp_path: Path, warned: Warned) -> None:
    run(f"cat >> {tmp_path}/got; sleep 0.02", warned, "started", "progress", "dumped", "dumped", "finished")
    lines = (tmp_path / "got").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "dumped", "dumped", "finished"]
    assert not warned.warnings


def test_one_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path, warned: Warned) -> None:
    command = f"cat > /dev/null; sleep 600 & echo $! >> {tmp_path}/pids; wait"
    run(command, warned, "started", "finished", limit_s=0.3)
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    until(lambda: all(map(gone, pids)), "their end")
    [(what, tip)] = warned.warnings
    assert "took longer than 0.3 s and was killed" in what and tip is not None


@pytest.mark.parametrize(
    ("command", "what"),
    [("/nowhere/notify", "exit code 127"), ("exit 3", "exit code 3"), ("kill -9 $$", "exit code -9")],
)
def test_one_that_fails_is_told_once(warned: Warned, command: str, what: str) -> None:
    run(command, warned, "started", "dumped", "finished")
    [(told, _)] = warned.warnings
    assert what in told


def test_one_that_reads_nothing_and_says_much_is_no_failure(warned: Warned) -> None:
    on_event = OnEvent("head -c 9000000 /dev/zero; head -c 9000000 /dev/zero >&2", cast(Reporter, warned))
    on_event.hear({"event": "dump_failed", "details": "x" * 1_000_000})
    on_event.close()
    assert not warned.warnings


def test_more_events_than_it_can_take_hold_nobody_up(warned: Warned) -> None:
    run("sleep 600", warned, *["dumped"] * 500, limit_s=600, end_s=0.3)
    assert any("does not keep up" in what for what, _ in warned.warnings)


def test_what_it_makes_is_made_with_our_umask(tmp_path: Path, warned: Warned) -> None:
    before = os.umask(0o077)
    try:
        run(f"touch {tmp_path}/made", warned, "started")
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600
