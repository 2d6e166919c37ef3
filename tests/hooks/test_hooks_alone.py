"""What a training's calls do in a process by itself: without a supervisor, and with one that is only a file."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criu_train.hooks import layout, member, wishes
from criu_train.hooks.layout import NEXT_REPORT, Phase
from criu_train.hooks.member import Member
from criu_train.hooks.wishes import Hooks
from criu_train.progress.line import Told
from criu_train.supervisor.hook_files import HookFiles
from criu_train.supervisor.hook_pages import MemberState

HERE = (os.geteuid(), os.getegid())


@pytest.fixture
def files(tmp_path: Path) -> Iterator[HookFiles]:
    made = HookFiles(tmp_path / "base" / "store", generation=0, owner=HERE)
    yield made
    made.close()


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def one(files: HookFiles, hooks: Hooks) -> Member:
    return Member(files.directory, hooks)


def told(files: HookFiles) -> Told:
    return files.members()[os.getpid()].told


def python(code: str, **environment: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


CALLS = """
from criu_train import hooks
@hooks.before_dump
@hooks.after_dump
@hooks.after_restore
def never(): print("called")
@hooks.state_digest
def digest(): print("called")
hooks.report(step=1, loss=0.5)
print(hooks.active(), hooks.generation(), hooks.checkpoint().id, hooks.checkpoint(wait=False).restored)
"""


@pytest.mark.parametrize("directory", [None, "", "/nowhere", "/etc"])
def test_without_criu_train_every_call_returns_at_once_and_does_nothing(directory: str | None) -> None:
    assert python(CALLS, **({} if directory is None else {layout.VARIABLE: directory})) == "False 0 None False\n"


def test_what_a_training_imports_is_quick_and_part_of_python() -> None:
    code = "import sys; before = set(sys.modules); import criu_train.hooks; print(*set(sys.modules) - before)"
    roots = {name.partition(".")[0] for name in python(code).split()}
    assert roots <= sys.stdlib_module_names | {"criu_train"}


def test_what_is_reported_can_be_read_beside_the_process(files: HookFiles, one: Member) -> None:
    one.report(3, 0.25, {"loss": 1.5})
    one.report(4, None, {"loss": 1.25, "acc": 1})
    one.report(None, 1, {})
    assert told(files) == Told(4, 1.0, {"loss": 1.25, "acc": 1.0})


class Tensor:
    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value

    def __int__(self) -> int:
        return int(self.value)


class Odd:
    def __float__(self) -> float:
        raise LookupError("a library's own idea")


def test_numbers_of_any_kind_are_taken_and_what_is_none_is_left_out(files: HookFiles, one: Member) -> None:
    tell: Any = one.report  # as a training calls it, which nobody checks
    tell(Tensor(7), Tensor(0.5), {"loss": Tensor(2.5), "name": "resnet", "missing": None})
    tell("eight", Odd(), {"loss": "high", "best": float("inf"), "odd": Odd()})
    assert told(files) == Told(7, 0.5, {})
    one.report(1 << 80, None, {"loss": 3})
    assert told(files) == Told(7, 0.5, {"loss": 3.0})


def test_more_names_than_there_is_room_for_are_left_out_and_harm_nothing(files: HookFiles, one: Member) -> None:
    for number in range(100):
        one.report(number, None, {f"metric {number}": number})
    one.report(100, None, {"é" * 2000: 1.0})
    assert (told(files).step, len(told(files).metrics)) == (100, layout.METRICS)


@given(
    step=st.integers(-(1 << 62), 1 << 62),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=64),
)
def test_a_report_that_is_cut_off_anywhere_leaves_the_one_before(step: int, values: list[float]) -> None:
    page = bytearray(layout.PAGE_BYTES)
    first, second = layout.report_format(1), layout.report_format(len(values))
    first.pack_into(page, layout.REPORTS[1], 1, 1, 5, 0.5, 1.5, 1)
    whole = bytearray(page)
    second.pack_into(whole, layout.REPORTS[0], 2, len(values), step, math.nan, *values, 2)
    start = layout.REPORTS[0]
    for cut in range(0, second.size, 8):
        torn = page[:start] + whole[start : start + cut] + page[start + cut :]
        assert layout.read_report(bytes(torn)) == (1, 5, 0.5, (1.5,))
    read = layout.read_report(bytes(whole))
    assert read is not None
    assert (read[0], read[1], list(read[3])) == (2, step, values)


@given(seed=st.integers(0, 1 << 32))
def test_a_page_of_nonsense_is_read_without_harm(seed: int) -> None:
    page = Random(seed).randbytes(layout.PAGE_BYTES)
    layout.read_report(page)
    MemberState.read(page)
    MemberState.read(layout.MAGIC.to_bytes(8, sys.byteorder) + page[8:])


# --- rounds ---------------------------------------------------------------------------------------------------------


def meet(files: HookFiles, pid: int = os.getpid()) -> None:
    """The supervisor's part of one dump, from the moment the member has parked."""
    until(lambda: files.members()[pid].parked == files.round)
    files.change(Phase.PREPARING)
    until(lambda: files.members()[pid].ready == files.round)
    files.change(Phase.CUTTING)


def test_a_due_dump_holds_the_next_report_until_it_is_over(files: HookFiles, hooks: Hooks, one: Member) -> None:
    done: list[str] = []
    hooks.before_dump.append(lambda: done.append("before"))
    hooks.after_dump.append(lambda: done.append("after"))
    one.report(1, None, {})
    files.begin(NEXT_REPORT, "id")
    thread = threading.Thread(target=one.report, args=(2, None, {}))
    thread.start()
    meet(files)
    assert done == ["before"]
    assert told(files).step == 2
    time.sleep(0.05)
    assert thread.is_alive()
    files.change(Phase.CUT)
    thread.join(5)
    assert done == ["before", "after"]
    one.report(3, None, {})  # the round is over, for good
    assert files.members()[os.getpid()].parked == 0


def test_only_the_step_that_is_asked_for_or_a_later_one_is_held(files: HookFiles, one: Member) -> None:
    files.begin(5, "id")
    for step in range(5):
        one.report(step, None, {})
        one.report(None, None, {"loss": 1.0})  # in the middle of a step
    thread = threading.Thread(target=one.report, args=(5, None, {}))
    thread.start()
    meet(files)
    files.change(Phase.CUT)
    thread.join(5)
    assert not thread.is_alive()


def test_a_hook_that_raises_is_warned_of_and_keeps_no_other_from_running(hooks: Hooks) -> None:
    done: list[int] = []

    def broken() -> None:
        raise OSError("no connection")

    hooks.before_dump += [broken, lambda: done.append(1)]
    with pytest.warns(UserWarning, match="broken raised OSError"):
        wishes.run_all(hooks.before_dump)
    assert done == [1]


def test_where_warnings_are_errors_a_hook_that_raises_ends_no_training(hooks: Hooks) -> None:
    def broken() -> None:
        raise OSError("no connection")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wishes.run_all([broken, broken])


def test_a_digest_that_is_another_each_time_is_warned_of_and_not_used(
    files: HookFiles, hooks: Hooks, one: Member
) -> None:
    hooks.digests.append(lambda: str(next(numbers)))
    numbers = itertools.count()
    with pytest.warns(UserWarning, match="is not used"):
        assert hooks.digest() == ""
    assert hooks.digest() == ""


def test_all_threads_of_a_process_are_the_same_member(files: HookFiles) -> None:
    code = """
import threading
from criu_train import hooks
seen = []
threads = [threading.Thread(target=lambda: seen.append(hooks.active())) for _ in range(20)]
for one in threads: one.start()
for one in threads: one.join()
print(set(seen))
"""
    assert python(code, **{layout.VARIABLE: str(files.directory)}) == "{True}\n"


def test_a_supervisor_that_is_gone_holds_nobody_for_long(
    files: HookFiles, one: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_LOST_S", 0.2)
    files.begin(NEXT_REPORT, "id")
    began = time.monotonic()
    one.report(1, None, {})
    assert 0.2 <= time.monotonic() - began < 5
    assert one.checkpoint(wait=True) == (None, False, "nobody watches over this training at present")
    one.report(2, None, {})


def ask(one: Member, wait: bool, answers: list[tuple[str | None, bool, str]]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(one.checkpoint(wait)))
    thread.start()
    return thread


@pytest.mark.parametrize("wait", [True, False])
def test_a_checkpoint_tells_its_id_once_it_is_made_or_on_the_disk(files: HookFiles, one: Member, wait: bool) -> None:
    answers: list[tuple[str | None, bool, str]] = []
    thread = ask(one, wait, answers)
    until(lambda: files.members()[os.getpid()].waiting == 1)
    files.begin(NEXT_REPORT, "20261122T231903Z-000001")
    meet(files)
    files.change(Phase.CUT)
    if wait:
        time.sleep(0.05)
        assert thread.is_alive()
        assert files.members()[os.getpid()].staying == 1
        files.change(Phase.COMPLETE, of=files.round)
    thread.join(5)
    assert files.members()[os.getpid()].staying == 0
    assert answers == [("20261122T231903Z-000001", False, "")]
    assert files.members()[os.getpid()].waiting == 0


def test_a_checkpoint_that_fails_tells_why_also_before_there_was_a_round(files: HookFiles, one: Member) -> None:
    for begin in (True, False):
        answers: list[tuple[str | None, bool, str]] = []
        thread = ask(one, True, answers)
        until(lambda: files.members()[os.getpid()].waiting == 1)
        files.begin(NEXT_REPORT, "id")
        if begin:
            meet(files)
        files.change(Phase.FAILED, problem="the disk is full")
        thread.join(5)
        assert answers == [(None, False, "the disk is full")]


def test_a_checkpoint_that_met_a_bad_moment_is_tried_again(files: HookFiles, one: Member) -> None:
    answers: list[tuple[str | None, bool, str]] = []
    thread = ask(one, False, answers)
    for phase in (Phase.AGAIN, Phase.AGAIN, Phase.CUT):
        until(lambda: files.members()[os.getpid()].waiting == 1)
        files.begin(NEXT_REPORT, "id")
        meet(files)
        files.change(phase)
    thread.join(5)
    assert answers == [("id", False, "")]


def test_after_a_restore_the_one_that_was_parked_is_told_so_and_whoever_was_not_at_its_next_report(
    files: HookFiles, hooks: Hooks, one: Member
) -> None:
    done: list[int] = []
    hooks.after_restore.append(lambda: done.append(one.restores))
    answers: list[tuple[str | None, bool, str]] = []
    thread = ask(one, True, answers)
    files.begin(NEXT_REPORT, "id")
    meet(files)
    again = restored(files, 1)
    thread.join(5)
    assert (answers, done) == ([("the id", True, "")], [1])
    again = restored(again, 2)
    one.report(1, None, {})
    one.report(2, None, {})
    assert done == [1, 2]
    again.close()


def restored(files: HookFiles, generation: int) -> HookFiles:
    """As the supervisor of a later life does; here the member's memory is the old one all the time."""
    files.close()
    return HookFiles(files.directory, generation=generation, restored_from="the id", owner=HERE)


def test_a_digest_is_made_at_the_dump_and_again_after_the_restore(files: HookFiles, hooks: Hooks, one: Member) -> None:
    state = ["first"]
    hooks.digests.append(lambda: state[0])
    thread = threading.Thread(target=one.report, args=(1, None, {}))
    files.begin(NEXT_REPORT, "id")
    thread.start()
    meet(files)
    before = files.members()[os.getpid()]
    assert (before.digested, len(before.digest)) == (1, 64)
    again = restored(files, 1)
    thread.join(5)
    assert not thread.is_alive()
    after = again.members()[os.getpid()]
    assert (after.digested, after.digest) == (2, before.digest)
    again.close()


class Stepped:
    """Words shared with the supervisor; ``step`` is called before each one is read or written."""

    def __init__(self, words: memoryview[int], step: Callable[[], None]) -> None:
        self._words = words
        self._step = step

    def __getitem__(self, at: int) -> int:
        self._step()
        return self._words[at]

    def __setitem__(self, at: int, word: int) -> None:
        self._step()
        self._words[at] = word


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("moment", range(12))
def test_wherever_the_cut_falls_a_digest_that_the_snapshot_counts_on_is_made_again(
    files: HookFiles, hooks: Hooks, one: Member, monkeypatch: pytest.MonkeyPatch, moment: int, lost: bool
) -> None:
    lives, left, counted = [files], itertools.count(moment, -1), False

    def step() -> None:
        nonlocal counted
        if cutting.is_set() and next(left) == 0:
            cut = files.members()[os.getpid()]
            counted = cut.ready == files.round
            lives.append(restored(files, 1))

    cutting = threading.Event()
    hooks.digests.append(lambda: "the same")
    monkeypatch.setattr(one, "_told", Stepped(one._told, step))
    monkeypatch.setattr(one, "_words", Stepped(one._words, step))
    files.begin(NEXT_REPORT, "id")
    thread = threading.Thread(target=one.report, args=(1, None, {}))
    thread.start()
    meet(files)
    if lost:
        monkeypatch.setattr(member, "_LOST_S", -1.0)
    cutting.set()
    thread.join(5)
    assert not thread.is_alive()
    cutting.clear()
    assert len(lives) == 2 or lost
    after = lives[-1].members()[os.getpid()]
    assert after.digested == 2 or not counted
    assert (after.parked, after.ready) == (0, 0)
    lives[-1].close()


def test_from_a_state_that_is_another_not_one_step_is_made(
    files: HookFiles, hooks: Hooks, one: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_LOST_S", 0.3)
    state = ["first"]
    hooks.digests.append(lambda: state[0])
    thread = threading.Thread(target=one.report, args=(1, None, {}))
    files.begin(NEXT_REPORT, "id")
    thread.start()
    meet(files)
    before = files.members()[os.getpid()].digest
    state[0] = "second"
    again = restored(files, 1)
    until(lambda: again.members()[os.getpid()].digested == 2)
    for _ in range(10):
        again.beat()
        time.sleep(0.05)
    assert thread.is_alive()
    assert again.members()[os.getpid()].digest != before
    thread.join(5)
    again.close()


def test_a_forked_child_is_a_member_of_its_own(files: HookFiles) -> None:
    code = """
import os
from criu_train import hooks
hooks.report(step=1)
if (child := os.fork()) == 0:
    hooks.report(step=2)
    os._exit(0)
os.waitpid(child, 0)
hooks.report(epoch=3)
print(os.getpid(), child)
"""
    parent, child = map(int, python(code, **{layout.VARIABLE: str(files.directory)}).split())
    members = files.members()
    assert (members[parent].told, members[child].told) == (Told(1, 3.0), Told(2))
