"""Why the run was interrupted: read from what supervisor, init and the machine left behind."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from criu_train.cell.records import Ended
from criu_train.supervisor.state import State, boot_id


def read_ended(cell_file: Path, run: str) -> Ended | None:
    """How the training of this run ended as init wrote it down, or None when init could not."""
    try:
        content: dict[str, Any] = json.loads(cell_file.read_text())
        if content["run"] != run:
            return None
        return Ended(code=content["code"], out_of_memory=content["out_of_memory"])
    except (OSError, ValueError, LookupError):
        return None


def describe_end(ended: Ended) -> str:
    """One phrase: how the training ended."""
    if ended.cell_lost:
        return "its cell was killed from outside"
    if ended.out_of_memory:
        return "it was killed because the machine ran out of memory"
    if ended.code < 0:
        return f"it was killed by {_signal_name(-ended.code)}"
    return f"it ended with exit code {ended.code}"


def describe_interruption(state: State | None, ended: Ended | None) -> str:
    """One phrase: what ended the last supervisor's watch over an unfinished run."""
    if state is None:
        return "nothing is known of its last supervisor"
    if state.state == "finished" and state.exit_code is not None:
        return _stopped(state.exit_code)
    if state.boot_id is not None and state.boot_id != boot_id():
        return "the machine was rebooted or lost power"
    if ended is not None:
        return f"the supervisor was lost, then the training went on alone until {describe_end(ended)}"
    return "supervisor and training were killed from outside"


def _stopped(exit_code: int) -> str:
    if exit_code == 128 + signal.SIGTERM:
        return "it was stopped by SIGTERM (preemption)"
    if exit_code == 128 + signal.SIGINT:
        return "it was stopped with Ctrl-C"
    if exit_code > 128:
        return f"it was killed by {_signal_name(exit_code - 128)}"
    return f"it ended with exit code {exit_code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
