"""supervisor.json: what others can see."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from criu_train.cell import processes
from criu_train.supervisor.state import State, StateFile, boot_id, read_state


def test_the_state_read_is_the_state_written(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "supervisor.json", State(supervisor_pid=1))
    file.change(state="running", init_pid=7)
    assert read_state(tmp_path / "supervisor.json") == State(supervisor_pid=1, state="running", init_pid=7)


def test_a_pid_that_was_given_to_another_process_is_not_the_supervisor() -> None:
    me = os.getpid()
    started = processes.start_time(me)
    assert State(supervisor_pid=me, supervisor_started=started).supervisor_alive()
    assert not State(supervisor_pid=me, supervisor_started=(started or 0) - 100).supervisor_alive()


def test_a_process_of_another_boot_is_not_the_supervisor() -> None:
    me = os.getpid()
    known = State(supervisor_pid=me, supervisor_started=processes.start_time(me), boot_id=boot_id())
    assert known.supervisor_alive()
    assert not replace(known, boot_id="another").supervisor_alive()


def test_when_a_process_started_is_told_by_a_clock_that_nobody_can_set() -> None:
    begin = time.clock_gettime(time.CLOCK_BOOTTIME)
    child = subprocess.Popen(["sleep", "60"])
    try:
        started = processes.start_time(child.pid)
        assert started is not None
        assert begin - 0.02 <= started <= time.clock_gettime(time.CLOCK_BOOTTIME)  # the kernel's ticks are 10 ms
    finally:
        child.kill()
        child.wait()


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["sleep", "60"])
    started = processes.start_time(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert not State(init_pid=child.pid, init_started=started).cell_alive()
    finally:
        child.wait()


def test_a_full_disk_does_not_stop_the_supervisor(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "gone" / "supervisor.json", State())
    file.change(state="running")
    assert file.state.state == "running"
