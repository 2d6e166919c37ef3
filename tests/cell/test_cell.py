"""A cell with real namespaces: launching, CRIU under a time limit, the cut, the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest
from cells import COUNT, FIRST_PID, cell_at, dump, grows, launch
from harness import until

from criu_train.cell import processes
from criu_train.cell.records import Cut, Ended
from criu_train.criu.command import restore_command
from criu_train.criu.cure import cure
from criu_train.criu.find import find_criu
from criu_train.errors import CommandNotRunnableError
from criu_train.supervisor.hook import prepare_hook

pytestmark = pytest.mark.criu


async def test_the_training_gets_its_own_session_and_only_the_standard_descriptors(place: Path) -> None:
    keep = socket.socketpair()
    async with cell_at(place) as cell:
        await launch(cell, place, "sleep", "60")
        assert processes.pid_in_cell(cell.root_pid) == FIRST_PID
        fds = Path(f"/proc/{cell.root_pid}/fd")  # a program that has just begun still opens its libraries
        until(lambda: sorted(os.listdir(fds)) == ["0", "1", "2"], "three descriptors and no more", 5)
        assert os.readlink(f"/proc/{cell.root_pid}/fd/0") == "/dev/null"
        assert os.getsid(cell.root_pid) == cell.root_pid
    for end in keep:
        end.close()


async def test_the_training_sees_nothing_of_init_s_privileges(place: Path) -> None:
    async with cell_at(place) as cell:
        await launch(
            cell, place, "sh", "-c", "cat /proc/self/oom_score_adj; nice; grep -E 'SigBlk|SigIgn' /proc/self/status"
        )
        ended = await asyncio.wait_for(asyncio.shield(cell.ended), 10)
    mine = Path("/proc/self/oom_score_adj").read_text().split()
    lines = (place / "output.log").read_text().split()
    assert ended.code == 0
    assert lines[0] == mine[0]
    assert lines[1] == str(os.getpriority(os.PRIO_PROCESS, 0))
    assert lines[3] == lines[5] == "0" * 16


@pytest.mark.parametrize(("program", "exit_code"), [("/nowhere/at/all", 127), ("/etc/passwd", 126)])
async def test_a_command_that_cannot_be_executed_says_so(place: Path, program: str, exit_code: int) -> None:
    async with cell_at(place) as cell:
        with pytest.raises(CommandNotRunnableError) as caught:
            await launch(cell, place, program)
        assert caught.value.exit_code == exit_code


async def test_the_way_the_training_ended_is_written_down_by_init(place: Path) -> None:
    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", "exit 7")
        assert await asyncio.wait_for(asyncio.shield(cell.ended), 10) == Ended(code=7)
        await cell.close()
    assert json.loads((place / "cell.json").read_text()) == {"run": "r", "code": 7, "out_of_memory": False}


async def test_a_tree_is_dumped_killed_restored_and_dumped_again(place: Path) -> None:
    cuts: list[Cut] = []

    async def at_cut(cut: Cut) -> bool:
        cuts.append(cut)
        return True

    output = place / "output.log"
    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        assert await grows(output)
        command = dump(place, "first")
        ended = await cell.criu(command, limit_s=30, stderr=place / "err", hook=place / ".hook", at_cut=at_cut)
        assert ended.code == 0
        assert await grows(output)
    async with cell_at(place) as cell:
        command = restore_command(find_criu(), images=place / "first", log=place / "restore.log")
        ended = await cell.criu(command, limit_s=30, stderr=place / "err", next_pid=cuts[0].last_pid + 1)
        assert ended.code == 0, (place / "restore.log").read_text()[-2000:]
        await cell.adopt(FIRST_PID)
        assert await grows(output)
        assert cell.strays() == []
        command = dump(place, "second", leave_running=False)
        ended = await cell.criu(command, limit_s=30, stderr=place / "err", hook=place / ".hook", at_cut=at_cut)
        assert ended.code == 0
        assert (await asyncio.wait_for(asyncio.shield(cell.ended), 10)).code == -signal.SIGKILL
        assert cure([], log=(place / "second.log").read_text()) != []  # its network lock


async def test_a_cut_that_is_refused_fails_the_dump_and_the_tree_goes_on(place: Path) -> None:
    async def refuse(_: Cut) -> bool:
        return False

    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        command = dump(place, "images")
        ended = await cell.criu(command, limit_s=30, stderr=place / "images.log", hook=place / ".hook", at_cut=refuse)
        assert ended.code != 0
        assert not ended.broke_off
        assert await grows(place / "output.log")


async def test_a_cut_that_takes_too_long_is_ended_by_crius_own_failure_and_not_by_killing_it(place: Path) -> None:
    async def never(_: Cut) -> bool:
        await asyncio.sleep(3)
        return True

    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        command = dump(place, "images")
        ended = await cell.criu(command, limit_s=1, stderr=place / "images.log", hook=place / ".hook", at_cut=never)
        assert ended.timed_out
        assert not ended.broke_off
        assert ended.code != 0
        assert await grows(place / "output.log")


async def test_a_criu_that_must_be_killed_leaves_the_tree_held_until_it_is_cured(place: Path) -> None:
    async def hang(_: Cut) -> bool:
        (criu,) = set(processes.children(cell.init_pid)) - {cell.root_pid}
        for pid in processes.children(criu):
            os.kill(pid, signal.SIGSTOP)  # the action script will not hear our answer
        return True

    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        command = dump(place, "images")
        ended = await cell.criu(command, limit_s=1, stderr=place / "images.log", hook=place / ".hook", at_cut=hang)
        assert ended.timed_out
        assert ended.killed
        root = psutil.Process(cell.root_pid)
        until(lambda: root.status() == psutil.STATUS_STOPPED, "it to be held", 5)  # it needs a processor for that
        cure(cell.tree(), log=(place / "images.log").read_text())
        await cell.release()
        assert await grows(place / "output.log")


async def test_a_criu_that_leaves_in_the_middle_leaves_the_tree_held_until_it_is_cured(place: Path) -> None:
    prepare_hook(place / ".hook")
    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        assert await grows(place / "output.log")
        ended = await cell.criu(
            ["/bin/sh", "-c", "echo Dumping; exit 1"], limit_s=30, stderr=place / "images.log", hook=place / ".hook"
        )
        assert (ended.code, ended.killed, ended.broke_off) == (1, False, True)
        root = psutil.Process(cell.root_pid)
        until(lambda: root.status() == psutil.STATUS_STOPPED, "it to be held", 5)
        await cell.release()
        assert await grows(place / "output.log")


async def test_a_criu_that_somebody_stopped_is_told_to_go_on(place: Path) -> None:
    async def stop_criu(_: Cut) -> bool:
        (criu,) = set(processes.children(cell.init_pid)) - {cell.root_pid}
        os.kill(criu, signal.SIGSTOP)
        return True

    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        command = dump(place, "images")
        ended = await cell.criu(command, limit_s=30, stderr=place / "err", hook=place / ".hook", at_cut=stop_criu)
        assert ended.was_stopped
        assert ended.code == 0
        assert await grows(place / "output.log")


async def test_init_lets_a_dump_fail_when_the_supervisor_is_gone(place: Path) -> None:
    """The control channel is closed at the cut, as a killed supervisor's would be."""

    async def vanish(_: Cut) -> bool:
        cell._link.lose()
        return False

    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        root = cell.root_pid
        command = dump(place, "images")
        with pytest.raises(ConnectionError):
            await cell.criu(command, limit_s=30, stderr=place / "err", hook=place / ".hook", at_cut=vanish)
        assert await grows(place / "output.log")
        assert processes.start_time(root) is not None


async def test_io_uring_is_refused_so_that_libraries_fall_back(place: Path) -> None:
    call = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(425, 1, 0), ctypes.get_errno())"
    async with cell_at(place) as cell:
        await launch(cell, place, "python3", "-c", call)
        await asyncio.wait_for(asyncio.shield(cell.ended), 10)
    assert (place / "output.log").read_text().split() == ["-1", "38"]
