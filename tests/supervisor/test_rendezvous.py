"""Meeting real processes between two of their steps, without CRIU."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, cast

import pytest

from criu_train.cell.cell import Cell
from criu_train.errors import DumpFailedError
from criu_train.hooks import layout
from criu_train.hooks.member import Member
from criu_train.hooks.wishes import Hooks
from criu_train.progress.line import Told
from criu_train.supervisor.hook_files import HookFiles
from criu_train.supervisor.meeting_place import same_place
from criu_train.supervisor.rendezvous import Meeting, Rendezvous

SPAWN = multiprocessing.get_context("spawn")


def rank(directory: str, barrier: Barrier, inside: Any, number: int, step_s: float) -> None:
    """A rank that works in step with others: none begins a step before all have done the one before."""
    os.environ[layout.VARIABLE] = directory
    from criu_train import hooks

    hooks.state_digest(lambda: "the same")
    for step in range(1_000_000):
        inside[number] = 1
        time.sleep(step_s * (number + 1) / 2)
        barrier.wait()
        inside[number] = 0
        hooks.report(step=step, loss=1 / (step + 1))


def loner(directory: str, step_s: float, start: int, pause_at: int = -1) -> None:
    """One that waits for nobody, and may stop reporting for good."""
    os.environ[layout.VARIABLE] = directory
    from criu_train import hooks

    for step in range(start, start + 1_000_000):
        time.sleep(step_s)
        hooks.report(step=step)
        if step == pause_at:
            time.sleep(600)


class FakeCell:
    def __init__(self, processes: Sequence[SpawnProcess]) -> None:
        self._processes = processes
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def tree(self) -> list[int]:
        return [one.pid for one in self._processes if one.is_alive() and one.pid]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[HookFiles]:
    made = HookFiles(tmp_path / "base" / "store", generation=0, owner=(os.geteuid(), os.getegid()))
    yield made
    made.close()


@contextmanager
def started(target: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> Iterator[list[SpawnProcess]]:
    processes = [SPAWN.Process(target=target, args=call) for call in calls]
    try:
        for one in processes:
            one.start()
        yield processes
    finally:
        for one in processes:
            one.kill()
            one.join()


async def reporting(files: HookFiles, count: int) -> None:
    end = time.monotonic() + 30
    while sum(one.reports > 3 for one in files.members().values()) < count:
        assert time.monotonic() < end
        files.beat()
        await asyncio.sleep(0.01)


@contextmanager
def watched(rendezvous: Rendezvous) -> Iterator[None]:
    task = asyncio.ensure_future(rendezvous.watch())
    try:
        yield
    finally:
        task.cancel()


def rendezvous_with(files: HookFiles, processes: Sequence[SpawnProcess], limit_s: float = 10.0) -> Rendezvous:
    return Rendezvous(files, cast(Cell, FakeCell(processes)), limit_s=limit_s)


@pytest.mark.parametrize("step_s", [0.0, 0.002, 0.05])
async def test_ranks_that_work_in_step_are_met_after_the_same_step(files: HookFiles, step_s: float) -> None:
    barrier, inside = SPAWN.Barrier(2), SPAWN.RawArray("i", 2)
    calls = [(str(files.directory), barrier, inside, number, step_s) for number in range(2)]
    with started(rank, calls) as processes:
        await reporting(files, 2)
        rendezvous = rendezvous_with(files, processes)
        with watched(rendezvous):
            await asyncio.sleep(0.3)
            for _ in range(10):
                async with rendezvous.meeting("id") as meeting:
                    steps = {one.step for one in files.members().values()}
                    assert (meeting.aligned, list(inside), len(steps)) == (True, [0, 0], 1)
                    assert len(meeting.digests) == 2
                    await asyncio.sleep(0.02)
                    assert {one.step for one in files.members().values()} == steps
                assert meeting.parked_s < 1


async def test_those_that_wait_for_nobody_are_met_wherever_each_is(files: HookFiles) -> None:
    with started(loner, [(str(files.directory), 0.01, 0), (str(files.directory), 0.03, 5000)]) as processes:
        await reporting(files, 2)
        async with rendezvous_with(files, processes).meeting("id") as meeting:
            steps = sorted(one.step or 0 for one in files.members().values())
            assert meeting.aligned
            assert steps[0] < 1000 < steps[1]


async def test_who_does_not_report_any_more_is_waited_for_once_and_then_never(files: HookFiles) -> None:
    calls = [(str(files.directory), 0.01, 0), (str(files.directory), 0.01, 5000, 5010)]
    with started(loner, calls) as processes:
        rendezvous = rendezvous_with(files, processes, limit_s=1.0)
        with watched(rendezvous):
            await reporting(files, 2)
            await asyncio.sleep(0.3)
            async with rendezvous.meeting("id") as meeting:
                assert meeting.aligned is False
            assert 0.3 < meeting.parked_s < 2
            await asyncio.sleep(1.0)
            async with rendezvous.meeting("id") as meeting:
                assert meeting.aligned
            assert meeting.parked_s < 0.3


async def test_one_that_dies_on_the_way_is_not_waited_for(files: HookFiles) -> None:
    calls = [(str(files.directory), 0.01, 0), (str(files.directory), 0.01, 5000, 5004)]
    with started(loner, calls) as processes:
        await reporting(files, 2)
        rendezvous = rendezvous_with(files, processes)

        async def kill() -> None:
            await asyncio.sleep(0.2)
            processes[1].kill()

        killing = asyncio.ensure_future(kill())
        async with rendezvous.meeting("id") as meeting:
            assert meeting.aligned is not None
        assert meeting.parked_s < 3
        await killing
        processes[1].join()
        async with rendezvous.meeting("id") as meeting:
            assert meeting.aligned
        assert len(files.members()) == 1


@pytest.mark.parametrize("start", [-1000, (1 << 63) - 2000])
async def test_steps_that_nobody_makes_do_no_harm(files: HookFiles, start: int) -> None:
    calls = [(str(files.directory), 0.01, start)] * 2
    with started(loner, calls) as processes:
        await reporting(files, 2)
        async with rendezvous_with(files, processes).meeting("id") as meeting:
            assert meeting.aligned


async def test_where_hooks_are_not_used_nothing_is_waited_for(files: HookFiles) -> None:
    rendezvous = rendezvous_with(files, [])
    async with rendezvous.meeting("id") as meeting:
        assert meeting == Meeting()
    assert rendezvous.told() == Told()
    nothing = Rendezvous(None, cast(Cell, FakeCell([])), limit_s=10)
    async with nothing.meeting("id") as meeting:
        assert meeting == Meeting()
    await nothing.watch()
    nothing.refuse("why")
    nothing.settle(meeting)
    assert nothing.facts(meeting) is None


async def test_everybody_goes_on_when_the_dump_fails(files: HookFiles) -> None:
    with started(loner, [(str(files.directory), 0.01, 0)]) as processes:
        await reporting(files, 1)
        rendezvous = rendezvous_with(files, processes)
        with pytest.raises(DumpFailedError):
            async with rendezvous.meeting("id"):
                raise DumpFailedError("no", tip="none")
        (before,) = files.members().values()
        await asyncio.sleep(0.3)
        (after,) = files.members().values()
        assert after.reports > before.reports


def asker(directory: str, answers: Any, wait: bool) -> None:
    os.environ[layout.VARIABLE] = directory
    from criu_train import hooks

    answers.put(tuple(hooks.checkpoint(wait)))


async def answer_of(
    files: HookFiles, limit_s: float, in_tree: bool, serve: bool = True, wait: bool = False
) -> tuple[Any, ...]:
    """What ``checkpoint`` returns, where every wish for a dump is met by one."""
    answers = SPAWN.Queue()
    with started(asker, [(str(files.directory), answers, wait)]) as processes:
        wanted = asyncio.Event()
        cell = cast(Cell, FakeCell(processes if in_tree else []))
        rendezvous = Rendezvous(files, cell, limit_s=limit_s, wanted=wanted.set)
        with watched(rendezvous):
            if in_tree and serve:
                await asyncio.wait_for(wanted.wait(), 20)
                async with rendezvous.meeting("the id") as meeting:
                    pass
                assert rendezvous.is_awaited() == wait
                rendezvous.settle(meeting)
            elif in_tree:
                await asyncio.wait_for(wanted.wait(), 20)
                rendezvous.refuse("no more", for_good=True)
            return tuple(await asyncio.to_thread(answers.get, True, 30))


@pytest.mark.parametrize("limit_s", [0.0, 10.0])
async def test_a_checkpoint_is_answered_however_short_the_time_for_others_is(files: HookFiles, limit_s: float) -> None:
    assert await answer_of(files, limit_s, in_tree=True) == ("the id", False, "")


async def test_it_is_known_whether_somebody_waits_for_the_snapshot_to_be_complete(files: HookFiles) -> None:
    assert await answer_of(files, 10.0, in_tree=True, wait=True) == ("the id", False, "")


async def test_a_checkpoint_of_a_process_that_is_in_no_snapshot_says_so(files: HookFiles) -> None:
    id_, restored, problem = await answer_of(files, 10.0, in_tree=False)
    assert (id_, restored) == (None, False)
    assert "not in the training's tree" in problem


async def test_a_checkpoint_for_which_there_will_be_no_dump_any_more_is_told_so(files: HookFiles) -> None:
    assert await answer_of(files, 10.0, in_tree=True, serve=False) == (None, False, "no more")


async def test_with_no_time_at_all_nobody_is_held(files: HookFiles) -> None:
    with started(loner, [(str(files.directory), 0.01, 0)]) as processes:
        await reporting(files, 1)
        rendezvous = rendezvous_with(files, processes, limit_s=0)
        async with rendezvous.meeting("id") as meeting:
            assert meeting.aligned is False
        assert meeting.round == 0


def as_nobody(directory: str) -> None:
    os.environ[layout.VARIABLE] = directory
    from criu_train import hooks

    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    hooks.report(step=1)
    assert hooks.active()
    for path in (layout.CONTROL, f"{layout.MEMBERS}/../x", "supervisor/x"):
        with pytest.raises(PermissionError):
            os.close(os.open(f"{directory}/{path}", os.O_WRONLY | os.O_CREAT))


async def test_a_training_of_another_user_can_report_and_change_nothing_of_ours() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o711)
        files = HookFiles(Path(place) / "base" / "store", generation=0, owner=(65534, 65534))
        with started(as_nobody, [(str(files.directory),)]) as processes:
            await asyncio.to_thread(processes[0].join, 30)
            assert processes[0].exitcode == 0
        assert [one.step for one in files.members().values()] == [1]
        files.close()


async def test_a_digest_of_one_that_has_left_before_the_cut_is_not_kept(files: HookFiles) -> None:
    barrier, inside = SPAWN.Barrier(2), SPAWN.RawArray("i", 2)
    calls = [(str(files.directory), barrier, inside, number, 0.01) for number in range(2)]
    with started(rank, calls) as processes:
        await reporting(files, 2)
        rendezvous = rendezvous_with(files, processes)
        async with rendezvous.meeting("id") as meeting:
            assert len(meeting.digests) == 2
            rendezvous.confirm(meeting)
            assert len(meeting.digests) == 2
            files.change(layout.Phase.AGAIN)
            await asyncio.sleep(0.2)
            rendezvous.confirm(meeting)
            assert meeting.digests == {}


async def test_a_process_outside_of_the_cell_is_no_member_and_harms_no_page(files: HookFiles) -> None:
    files._words[layout.NAMESPACE] = 12345
    with started(loner, [(str(files.directory), 0.01, 0)]):
        await asyncio.sleep(1.0)
        assert files.members() == {}


def test_a_page_of_a_process_with_the_same_number_is_left_to_who_has_mapped_it(files: HookFiles) -> None:
    first, second = (Member(files.directory, Hooks()) for _ in range(2))
    first.report(1, None, {})
    second.report(2, None, {})
    assert [one.step for one in files.members().values()] == [2]


async def test_a_closed_place_does_nothing_more(files: HookFiles) -> None:
    rendezvous = rendezvous_with(files, [])
    files.begin(0, "id")
    files.close(remove=True)
    rendezvous.settle(Meeting(round=1))
    rendezvous.refuse("why")
    assert (rendezvous.told(), files.members()) == (Told(), {})
    files.beat()
    files.begin(0, "id")


def test_what_another_user_left_becomes_this_users(tmp_path: Path) -> None:
    place = tmp_path / "base" / "store"
    for owner in ((0, 0), (65534, 65534), (0, 0)):
        files = HookFiles(place, generation=0, owner=owner)
        info = (place / layout.MEMBERS).stat()
        assert (info.st_uid, info.st_gid) == owner
        files.close()


@pytest.mark.parametrize(
    ("recorded", "there"),
    [
        ("/tmp/criu-train-hooks/ab12", True),
        ("/run/criu-train-hooks/ab12", True),
        ("/etc/ab12", False),
        ("criu-train-hooks/ab12", False),
        ("/run/criu-train-hooks/../x", False),
        ("/run/criu-train-hooks/..", False),
    ],
)
def test_a_training_is_met_where_it_looks_for_us_if_that_is_a_place_for_hooks(recorded: str, there: bool) -> None:
    usual = Path("/run/criu-train-hooks/ours")
    assert same_place(recorded, usual) == (Path(recorded) if there else usual)


# --- what a training might have put there ------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["link", "fifo", "directory", "short", "nonsense", "deep", "name", "socket"])
async def test_whatever_a_training_puts_beside_its_pages_is_passed_over(
    files: HookFiles, tmp_path: Path, what: str
) -> None:
    members = files.directory / layout.MEMBERS
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(layout.PAGE_BYTES))
    match what:
        case "link":
            (members / "7").symlink_to(secret)
        case "fifo":
            os.mkfifo(members / "7")
        case "directory":
            (members / "7").mkdir()
        case "short":
            (members / "7").write_bytes(b"short")
        case "nonsense":
            (members / "7").write_bytes(b"\xff" * layout.PAGE_BYTES)
        case "deep":
            page = bytearray(layout.PAGE_BYTES)
            page[:8] = layout.MAGIC.to_bytes(8, sys.byteorder)
            layout.report_format(1).pack_into(page, layout.REPORTS[1], 1, 1, 1, 0.5, 1.5, 1)
            page[layout.NAMES : layout.NAMES + layout.NAMES_BYTES] = b"[" * layout.NAMES_BYTES
            (members / "7").write_bytes(page)
        case "name":
            (members / "..x").write_bytes(bytes(layout.PAGE_BYTES))
            (members / "999999999999999999999").write_bytes(bytes(layout.PAGE_BYTES))
        case "socket":
            import socket

            here = os.getcwd()
            os.chdir(members)
            with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.bind("7")
            os.chdir(here)
    assert all(not one.told.metrics for one in files.members().values())
    async with rendezvous_with(files, []).meeting("id") as meeting:
        assert not meeting.aligned
    assert secret.exists()


def test_two_supervisors_never_meet_trainings_at_one_place(files: HookFiles) -> None:
    from criu_train.errors import EnvironmentUnfitError

    with pytest.raises(EnvironmentUnfitError, match="can't be used"):
        HookFiles(files.directory, generation=0, owner=(0, 0))


def test_a_place_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    from criu_train.errors import EnvironmentUnfitError

    (tmp_path / "base").mkdir()
    (tmp_path / "base").chmod(0o777)
    with pytest.raises(EnvironmentUnfitError, match="can be written to by other users"):
        HookFiles(tmp_path / "base" / "store", generation=0, owner=(0, 0))
