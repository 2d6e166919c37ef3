"""What a cell survives: no processes, descriptors or disk to be had, a killed CRIU, a lost supervisor, a lost cell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cells import COUNT, FIRST_PID, cell_at, dump, grows, launch

from criu_train.cell import cell as cell_module
from criu_train.cell import processes
from criu_train.cell.cell import Cell
from criu_train.cell.init_process import InitProcess
from criu_train.cell.records import CellLostError, CriuExit, Cut, Ended
from criu_train.criu.cure import cure
from criu_train.errors import CommandNotRunnableError, CriuTrainError, EnvironmentUnfitError

pytestmark = [pytest.mark.criu, pytest.mark.slow]

GROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def group(controller: str) -> Iterator[Path]:
    """A control group of our own, empty again at the end."""
    path = GROUPS / controller / f"criu-train-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    try:
        yield path
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                path.rmdir()
                break
            time.sleep(0.05)


@contextlib.contextmanager
def no_more_processes(pid: int) -> Iterator[None]:
    """The process can't fork."""
    with group("pids") as pids:
        (pids / "cgroup.procs").write_text(str(pid))
        (pids / "pids.max").write_text("0")
        yield
        (pids / "pids.max").write_text("max")
        (GROUPS / "pids" / "cgroup.procs").write_text(str(pid))


@contextlib.contextmanager
def no_more_descriptors(pid: int) -> Iterator[None]:
    """The process can't open anything."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def yes(_: Cut) -> bool:
    return True


async def run_dump(cell: Cell, place: Path, name: str, at_cut: Any = yes, limit_s: float = 30) -> CriuExit:
    command = dump(place, name)
    return await cell.criu(command, limit_s=limit_s, stderr=place / f"{name}.log", hook=place / ".hook", at_cut=at_cut)


async def state_becomes(pid: int, state: str) -> bool:
    for _ in range(200):
        if psutil.Process(pid).status() == state:
            return True
        await asyncio.sleep(0.02)
    return False


def hanging_script(cell: Cell) -> Any:
    """An action script that never hears the answer, so that its CRIU must be killed."""

    async def hang(_: Cut) -> bool:
        (criu,) = set(processes.children(cell.init_pid)) - {cell.root_pid, *cell.strays()}
        for pid in processes.children(criu):
            os.kill(pid, signal.SIGSTOP)
        return True

    return hang


# --- init does not die ------------------------------------------------------------------------------------------


async def test_a_training_that_gets_no_process_is_told_and_can_be_tried_again(place: Path) -> None:
    async with cell_at(place, complaint="BlockingIOError") as cell:
        with no_more_processes(cell.init_pid), pytest.raises(CommandNotRunnableError, match="temporarily unavailable"):
            await launch(cell, place, "sleep", "60")
        await launch(cell, place, "sleep", "60")
        assert processes.pid_in_cell(cell.root_pid) == FIRST_PID


async def test_a_command_line_that_no_process_can_have_is_told(place: Path) -> None:
    async with cell_at(place) as cell:
        with pytest.raises(CommandNotRunnableError, match="Invalid argument"):
            await launch(cell, place, "echo", "a\0b")


async def test_a_dump_that_gets_no_process_fails_and_the_next_one_works(place: Path) -> None:
    async with cell_at(place, complaint="BlockingIOError") as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        with no_more_processes(cell.init_pid):
            ended = await run_dump(cell, place, "first")
        assert ended.code == 126
        assert "temporarily unavailable" in ended.problem
        assert await grows(place / "output.log")
        assert (await run_dump(cell, place, "second")).code == 0


async def test_a_dump_that_gets_no_descriptors_fails_and_the_next_one_works(place: Path) -> None:
    async with cell_at(place, complaint="Too many open files") as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        with no_more_descriptors(cell.init_pid):
            ended = await run_dump(cell, place, "first")
            assert (ended.code, ended.problem) == (126, f"Too many open files: {place}/.hook/ask")
            assert await grows(place / "output.log")
        assert (await run_dump(cell, place, "second")).code == 0


async def test_a_dump_whose_hook_is_missing_fails_without_a_criu_ever_started(place: Path) -> None:
    async with cell_at(place, complaint="FileNotFoundError") as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        started = await cell.criu(
            ["/bin/touch", f"{place}/started"], limit_s=5, stderr=place / "err", hook=place / "no"
        )
        assert started.code == 126
        assert "No such file or directory" in started.problem
        assert not (place / "started").exists()
        assert await grows(place / "output.log")


async def test_a_pid_that_cannot_be_is_told(place: Path) -> None:
    async with cell_at(place, complaint="Invalid argument") as cell:
        ended = await cell.criu(["/bin/true"], limit_s=5, stderr=place / "err", next_pid=0)
        assert ended == CriuExit(126, False, False, "Invalid argument")
        assert (await cell.criu(["/bin/true"], limit_s=5, stderr=place / "err", next_pid=500)).code == 0


async def test_a_cut_that_init_cannot_tell_of_is_refused_and_the_tree_goes_on(place: Path) -> None:
    async with cell_at(place, complaint="Too many open files") as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        running = asyncio.create_task(run_dump(cell, place, "images"))
        while len(processes.children(cell.init_pid)) < 2:
            await asyncio.sleep(0)
        with no_more_descriptors(cell.init_pid):
            ended = await running
        assert not ended.timed_out
        assert ended.code > 0
        assert await grows(place / "output.log")


async def test_the_end_is_told_although_it_cannot_be_written_down(place: Path) -> None:
    async with cell_at(place, cell_file=place / "lock" / "cell.json") as cell:
        await launch(cell, place, "sh", "-c", "exit 7")
        assert await asyncio.wait_for(asyncio.shield(cell.ended), 10) == Ended(code=7)
        assert await cell.sync_journal() > 0


async def test_an_unknown_message_is_survived(place: Path) -> None:
    async with cell_at(place, complaint="KeyError: 'nonsense'") as cell:
        cell._link.send("nonsense")
        assert await cell.sync_journal() > 0


# --- who is held ------------------------------------------------------------------------------------------------

STRAY = "(setsid sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done >>strays.log' &) ; "
SLEEPER = "sleep 1000 & echo $! >sleeper; "


@contextlib.asynccontextmanager
async def killed_criu(place: Path) -> Any:
    """A cell just after its CRIU had to be killed; also gives the PID of a task that was stopped before."""
    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", f"cd {place}; {STRAY} {SLEEPER} {COUNT}")
        while not (place / "strays.log").exists() or not await grows(place / "output.log"):
            await asyncio.sleep(0.02)
        (stray,) = cell.strays()
        number = int((place / "sleeper").read_text())
        (stopped,) = [pid for pid in cell.tree() if processes.pid_in_cell(pid) == number]
        os.kill(stopped, signal.SIGSTOP)
        ended = await run_dump(cell, place, "images", hanging_script(cell), limit_s=1)
        assert ended.killed
        assert await state_becomes(stray, psutil.STATUS_STOPPED)
        try:
            yield cell, stray, stopped
        finally:
            cure([], log=(place / "images.log").read_text())


async def test_everybody_who_was_held_goes_on_when_the_tree_is_cured(place: Path) -> None:
    async with killed_criu(place) as (cell, _, stopped):
        await cell.release()
        assert await grows(place / "strays.log")
        assert await grows(place / "output.log")
        assert psutil.Process(stopped).status() == psutil.STATUS_STOPPED


async def test_everybody_who_was_held_goes_on_when_the_supervisor_is_lost(place: Path) -> None:
    async with killed_criu(place) as (cell, _, stopped):
        cell._link.lose()
        assert await grows(place / "strays.log")
        assert await grows(place / "output.log")
        assert psutil.Process(stopped).status() == psutil.STATUS_STOPPED


@pytest.mark.slow
async def test_everybody_who_was_held_goes_on_when_nobody_says_so_for_ten_seconds(place: Path) -> None:
    async with killed_criu(place) as (_, stray, _):
        await asyncio.sleep(8)
        assert psutil.Process(stray).status() == psutil.STATUS_STOPPED
        await asyncio.sleep(2.5)
        assert await grows(place / "strays.log")
        assert await grows(place / "output.log")


# --- the cut ----------------------------------------------------------------------------------------------------


async def test_a_cut_at_work_is_waited_for_when_the_cell_is_lost(place: Path) -> None:
    done: list[str] = []

    def work() -> None:
        time.sleep(1)
        done.append("copied")

    async def lose_it(_: Cut) -> bool:
        os.kill(cell.init_pid, signal.SIGKILL)
        await asyncio.to_thread(work)
        return True

    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        with pytest.raises(CellLostError):
            await run_dump(cell, place, "images", lose_it)
        assert done == ["copied"]
    cure([], log=(place / "images.log").read_text())


async def test_a_cut_that_is_stuck_is_left_behind_and_does_not_answer_the_next_dump(place: Path) -> None:
    stuck = threading.Event()

    async def never(_: Cut) -> bool:
        await asyncio.to_thread(stuck.wait)
        return True

    async def refuse(_: Cut) -> bool:
        stuck.set()
        await asyncio.sleep(0.5)
        return False

    async with cell_at(place) as cell:
        await launch(cell, place, "sh", "-c", COUNT)
        try:
            begun = time.monotonic()
            ended = await run_dump(cell, place, "first", never, limit_s=1)
            assert time.monotonic() - begun < 9
            assert ended.timed_out
            assert await grows(place / "output.log")
            assert (await run_dump(cell, place, "second", refuse)).code > 0
        finally:
            stuck.set()


# --- the end of a cell ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["kill", "close"])
async def test_a_task_that_cannot_be_killed_does_not_hold_the_supervisor(
    place: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen control group of version 1 keeps its tasks from dying, as a dead disk does."""
    monkeypatch.setattr(cell_module, "_ENDING_S", 0.5)
    with group("freezer") as freezer:
        async with cell_at(place) as cell:
            await launch(cell, place, "sleep", "60")
            (freezer / "cgroup.procs").write_text(str(cell.root_pid))
            (freezer / "freezer.state").write_text("FROZEN")
            try:
                begun = time.monotonic()
                await getattr(cell, way)()
                assert time.monotonic() - begun < 5
                assert psutil.pid_exists(cell.root_pid)
                assert cell.ended.done()
            finally:
                (freezer / "freezer.state").write_text("THAWED")


async def test_whoever_waits_for_a_cell_hears_of_its_loss(place: Path) -> None:
    async with cell_at(place) as cell:
        os.kill(cell.init_pid, signal.SIGSTOP)
        waiting = [
            asyncio.create_task(launch(cell, place, "sleep", "60")),
            asyncio.create_task(cell.adopt(FIRST_PID)),
            asyncio.create_task(cell.criu(["/bin/true"], limit_s=5, stderr=place / "err")),
            asyncio.create_task(cell.sync_journal()),
        ]
        await asyncio.sleep(0.1)
        os.kill(cell.init_pid, signal.SIGKILL)
        heard = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        assert [type(error) for error in heard] == [CellLostError] * 4
        assert (await cell.ended).cell_lost
        with pytest.raises(CellLostError, match="the cell is gone"):
            await cell.sync_journal()
        await cell.release()
        await cell.close()


def test_the_loss_of_a_cell_is_an_error_of_ours_with_a_tip_and_a_connection_error() -> None:
    error = CellLostError()
    assert isinstance(error, CriuTrainError)
    assert isinstance(error, ConnectionError)
    assert (str(error), error.exit_code) == ("the cell is gone", 125)
    assert error.tip


# --- the beginning of a cell ------------------------------------------------------------------------------------


async def test_a_journal_that_cannot_be_written_is_told_as_what_it_is(place: Path) -> None:
    disk = place / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=2", "tmpfs", disk], check=True)
    try:
        (disk / "fill").touch()
        with pytest.raises(EnvironmentUnfitError, match=f"No space left on device: {disk}/journal"):
            async with cell_at(place, journal=disk / "journal"):
                pass
    finally:
        subprocess.run(["umount", disk], check=True)


async def test_what_unshare_has_to_say_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = place / "unshare"
    fake.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2; exit 1\n")
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    with pytest.raises(EnvironmentUnfitError, match="Operation not permitted"):
        async with cell_at(place):
            pass


async def test_a_cell_with_much_to_watch_starts_late_and_not_never(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5000):
        (place / str(number)).mkdir()
    identify = InitProcess.identify

    def identify_and_halt(init: InitProcess) -> None:
        identify(init)
        os.kill(init.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(3, os.kill, init.pid, signal.SIGCONT)

    monkeypatch.setattr(InitProcess, "identify", identify_and_halt)
    monkeypatch.setattr(cell_module, "_HELLO_S", 2.0)
    begun = time.monotonic()
    async with cell_at(place) as cell:
        assert time.monotonic() - begun > 3
        assert cell.watch_problem is None


# --- memory -----------------------------------------------------------------------------------------------------

HUNGRY = "x = bytearray(200 << 20)"


async def test_a_training_that_is_killed_for_want_of_memory_is_told_as_such(place: Path) -> None:
    with group("memory") as memory:
        async with cell_at(place) as cell:
            (memory / "memory.limit_in_bytes").write_text(str(64 << 20))
            (memory / "cgroup.procs").write_text(str(cell.init_pid))
            await launch(cell, place, "python3", "-c", HUNGRY)
            ended = await asyncio.wait_for(asyncio.shield(cell.ended), 20)
        assert ended == Ended(code=-signal.SIGKILL, out_of_memory=True)


async def test_another_program_s_want_of_memory_is_not_taken_for_the_training_s(place: Path) -> None:
    with group("memory") as ours, group("memory") as theirs:
        (theirs / "memory.limit_in_bytes").write_text(str(64 << 20))
        async with cell_at(place) as cell:
            (ours / "cgroup.procs").write_text(str(cell.init_pid))
            await launch(cell, place, "sleep", "60")
            hungry = f"open('{theirs}/cgroup.procs', 'w').write('0'); {HUNGRY}"
            other = await asyncio.create_subprocess_exec("python3", "-c", hungry)
            assert await asyncio.wait_for(other.wait(), 20) == -signal.SIGKILL
            os.kill(cell.root_pid, signal.SIGKILL)
            ended = await asyncio.wait_for(asyncio.shield(cell.ended), 10)
        assert ended == Ended(code=-signal.SIGKILL)


# --- /proc ------------------------------------------------------------------------------------------------------


def test_a_process_whose_name_is_no_text_is_known_by_its_number() -> None:
    rename = "open('/proc/self/comm', 'wb').write(b'\\xff\\xfe'); print(flush=True); input()"
    with subprocess.Popen(["python3", "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as named:
        assert named.stdout is not None
        named.stdout.readline()
        assert processes.pid_in_cell(named.pid) == named.pid
        assert processes.dumpable_bytes([named.pid]) > 0
        named.communicate(b"\n")
