"""Why a run was interrupted, told from what was left behind."""

from __future__ import annotations

import json
from pathlib import Path

from criu_train.cell.records import Ended
from criu_train.supervisor.cause import describe_end, describe_interruption, read_ended
from criu_train.supervisor.state import State, boot_id


def test_a_reboot_is_told_from_a_kill_by_the_boot_id() -> None:
    assert "rebooted" in describe_interruption(State(state="running", boot_id="another"), None)
    assert "killed from outside" in describe_interruption(State(state="running", boot_id=boot_id()), None)


def test_a_training_that_ended_without_its_supervisor_is_told_with_its_end() -> None:
    cause = describe_interruption(State(state="running", boot_id=boot_id()), Ended(code=3))
    assert "supervisor was lost" in cause
    assert "exit code 3" in cause


def test_a_preemption_is_remembered() -> None:
    assert "SIGTERM" in describe_interruption(State(state="finished", exit_code=143, boot_id=boot_id()), None)
    assert "Ctrl-C" in describe_interruption(State(state="finished", exit_code=130, boot_id=boot_id()), None)


def test_an_out_of_memory_kill_is_not_called_just_a_kill() -> None:
    assert "memory" in describe_end(Ended(code=-9, out_of_memory=True))
    assert "SIGKILL" in describe_end(Ended(code=-9))


def test_the_end_of_another_run_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    file = tmp_path / "cell.json"
    file.write_text(json.dumps({"run": "old", "code": 0, "out_of_memory": False}))
    assert read_ended(file, "new") is None
    assert read_ended(file, "old") == Ended(code=0)


def test_a_torn_cell_file_tells_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cell.json"
    file.write_text('{"run": "old", "co')
    assert read_ended(file, "old") is None
