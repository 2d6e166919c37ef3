"""The rights that a training starts with, in real cells and in processes that have more or fewer of them to lose."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cells import COUNT, FIRST_PID, cell_at, dump, grows
from harness import ROOT

from criu_train.cell.capabilities import DROPPED
from criu_train.criu.command import restore_command
from criu_train.criu.find import find_criu

NOBODY = (65534, 65534, (65534,))
MACHINES = sum(1 << number for number in DROPPED.values())
LAST = int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def rights(pid: int | str = "self") -> dict[str, int]:
    status = Path(f"/proc/{pid}/status").read_text()
    return {name: int(value, 16) for name, value in re.findall(r"^(Cap\w+):\s*(\w+)$", status, re.MULTILINE)}


def in_a_process(code: str, *setpriv: str) -> dict[str, int]:
    """What a process has left that ran ``code`` on ``capabilities``, then executed a program."""
    program = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from criu_train.cell import capabilities\n{code}\n"
        "os.execv('/bin/cat', ['cat', '/proc/self/status'])"
    )
    argv = ["setpriv", *setpriv, sys.executable, "-I", "-c", program]
    said = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return {name: int(value, 16) for name, value in re.findall(r"^(Cap\w+):\s*(\w+)$", said.stdout, re.MULTILINE)}


DROP = "capabilities.drop_capabilities()"


def test_every_set_loses_the_same_and_a_program_executed_later_does_not_get_it_back() -> None:
    more = ("--inh-caps", "+sys_boot,+chown", "--ambient-caps", "+sys_boot,+chown")
    assert in_a_process("", *more)["CapAmb"] & MACHINES, "there is nothing to lose"
    left = in_a_process(DROP, *more)
    assert all(one & MACHINES == 0 for one in left.values())
    assert left["CapInh"] == left["CapAmb"] == 1 << 0
    assert left["CapBnd"] == rights()["CapBnd"] & ~MACHINES


def test_what_is_not_there_and_what_the_kernel_does_not_know_is_nothing_to_drop() -> None:
    assert in_a_process(f"capabilities.DROPPED['LATER'] = {LAST + 1}\n{DROP}")["CapBnd"] & MACHINES == 0
    nothing = ("--bounding-set", "-all", "--inh-caps", "-all")
    assert in_a_process(DROP, *nothing)["CapPrm"] == 0


def test_what_is_there_and_can_t_be_dropped_is_a_failure() -> None:
    told = "try:\n  capabilities.drop_capabilities()\nexcept PermissionError: pass\nelse: sys.exit('it was dropped')"
    in_a_process(told, "--bounding-set", "-setpcap")


@pytest.mark.criu
async def test_another_user_s_training_has_no_rights_at_all_and_inherits_none(place: Path) -> None:
    output = place / "output.log"
    output.touch()
    async with cell_at(place) as cell:
        await cell.launch(["sh", "-c", COUNT], output=output, first_pid=FIRST_PID, ids=NOBODY)
        assert await grows(output)
        assert rights(cell.root_pid) == {
            **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), 0),
            "CapBnd": rights()["CapBnd"] & ~MACHINES,
        }
    left = in_a_process("capabilities.leave_nothing_to_inherit(); os.setuid(65534)", "--inh-caps", "+chown")
    assert left["CapInh"] == 0


@pytest.mark.criu
@pytest.mark.skipif(not rights()["CapEff"] >> 24 & 1, reason="the limits of another user's processes need SYS_RESOURCE")
async def test_another_user_s_training_has_none_after_a_restore_either(place: Path) -> None:
    output = place / "output.log"
    output.touch()
    async with cell_at(place) as cell:
        await cell.launch(["sh", "-c", COUNT], output=output, first_pid=FIRST_PID, ids=NOBODY)
        assert await grows(output)
        before = rights(cell.root_pid)
        ended = await cell.criu(dump(place, "images", leave_running=False), limit_s=30, stderr=place / "err")
        assert ended.code == 0, (place / "images.log").read_text()[-2000:]
    async with cell_at(place) as cell:
        command = restore_command(find_criu(), images=place / "images", log=place / "restore.log")
        ended = await cell.criu(command, limit_s=30, stderr=place / "err", next_pid=FIRST_PID + 50)
        assert ended.code == 0, (place / "restore.log").read_text()[-2000:]
        await cell.adopt(FIRST_PID)
        assert await asyncio.wait_for(grows(output), 10)
        assert rights(cell.root_pid) == before
