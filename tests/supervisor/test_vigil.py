"""Whether a restored training stands still: what counts, what does not, and what becomes of it then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from criu_train.cell.pulse import Pulse, Thread
from criu_train.supervisor import standstill
from criu_train.supervisor.standstill import Fallback, Standstills
from criu_train.supervisor.vigil import Vigil

LIMIT_S = 30.0  # looked at each second


class Tree:
    """As a vigil sees it, which looks each second."""

    def __init__(self) -> None:
        self.at, self.state, self.written = 0.0, "S", 0
        self.moves = self.asked = 0
        self.vigil = Vigil(self._look, LIMIT_S, on_motion=self._on_motion, to_be_ended=self._to_be_ended)

    def _look(self) -> Pulse:
        return Pulse(self.at, {1: Thread(self.state, 0.0)}, output=self.written)

    def _on_motion(self) -> None:
        self.moves += 1

    def _to_be_ended(self) -> bool:
        self.asked += 1
        return True

    async def lives(self, seconds: int, *, moving: bool = False) -> bool:
        """Whether it is to be ended at some time in these seconds."""
        found = False
        for _ in range(seconds):
            await self.vigil.look()
            self.at += 1
            self.written += moving
            found |= self.vigil.is_to_be_ended()
        await self.vigil.look()
        return found | self.vigil.is_to_be_ended()


async def test_one_that_waits_all_the_time_is_to_be_ended_when_the_limit_is_over_and_that_is_asked_once() -> None:
    tree = Tree()
    assert not await tree.lives(29)
    assert await tree.lives(1)
    assert not await tree.lives(100)
    assert (tree.asked, tree.moves) == (1, 0)


async def test_one_that_comes_to_the_end_of_its_step_and_no_further_stands_still() -> None:
    tree = Tree()
    assert not await tree.lives(3, moving=True)
    assert not tree.vigil.stands_still
    assert await tree.lives(30)
    assert tree.vigil.stands_still


async def test_one_that_does_something_now_and_then_is_left_alone_and_in_the_end_watched_no_more() -> None:
    tree = Tree()
    for _ in range(10):
        assert not await tree.lives(29)
        assert not await tree.lives(1, moving=True)
    assert tree.moves == 1
    assert tree.vigil.pause_s is None
    assert not await tree.lives(100)
    assert not tree.vigil.stands_still


@pytest.mark.parametrize("state", ["R", "D", "T", "t"])
async def test_time_in_which_it_was_kept_from_going_on_does_not_count(state: str) -> None:
    tree = Tree()
    tree.state = state
    assert not await tree.lives(100)
    tree.state = "S"
    assert not await tree.lives(29)
    assert await tree.lives(1)


async def test_time_in_which_nobody_looked_does_not_count() -> None:
    tree = Tree()
    assert not await tree.lives(5)
    tree.at += 1000  # all of us stood still
    assert not await tree.lives(23)
    assert await tree.lives(2)


async def test_what_a_dump_did_to_it_is_no_motion() -> None:
    tree = Tree()
    for _ in range(15):
        await tree.lives(1)
        tree.written += 1
        await tree.vigil.begin_anew()
        assert tree.vigil.stands_still
    assert tree.moves == 0


async def test_without_anything_to_look_at_nothing_stands_still() -> None:
    vigil = Vigil()
    await vigil.look()
    await vigil.begin_anew()
    assert (vigil.stands_still, vigil.pause_s, vigil.is_to_be_ended()) == (False, None, False)


def snapshot(sequence: int, *, at_work: bool | None = True) -> Any:
    told = SimpleNamespace(at_work=at_work)
    return SimpleNamespace(id=str(sequence), sequence=sequence, status="complete", manifest=told)


A, B, C, D = map(snapshot, (1, 2, 3, 4))


class Anything:
    """Takes whatever it is told."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def life(of: Any, *, unsaved: tuple[str, ...] = (), adopted: bool = False) -> Any:
    return SimpleNamespace(run=None, cell=None, snapshot=of, listing=SimpleNamespace(unsaved=unsaved), adopted=adopted)


def standstills(monkeypatch: pytest.MonkeyPatch, *snapshots: Any, limit_s: float | None = LIMIT_S) -> Standstills:
    """Of a store with these snapshots, newest first."""
    monkeypatch.setattr(standstill, "restorable", lambda *_: snapshots)
    store: Any = SimpleNamespace(layout=SimpleNamespace(output_log=Path("output.log")))
    anything: Any = Anything()
    return Standstills(store, limit_s, anything, anything)


@pytest.mark.parametrize(
    ("unsaved", "may_restart", "ended"), [((), True, True), (("data.bin",), True, False), ((), False, False)]
)
def test_none_is_ended_whose_files_could_not_be_put_back_or_that_may_not_be_restarted(
    monkeypatch: pytest.MonkeyPatch, unsaved: tuple[str, ...], may_restart: bool, ended: bool
) -> None:
    stood = standstills(monkeypatch, C, B, A)
    assert stood.to_be_ended(life(C, unsaved=unsaved), may_restart=may_restart) == ended
    assert bool(stood.candidates) == ended


def test_the_way_back_is_open_even_if_no_more_restarts_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    stood = standstills(monkeypatch, C, B, A)
    assert stood.to_be_ended(life(C), may_restart=True)
    assert stood.to_be_ended(life(B, unsaved=("data.bin",)), may_restart=False)
    assert stood.candidates == (C, B, A)
    assert not stood.to_be_ended(life(C), may_restart=True)


def test_a_vigil_is_kept_only_over_what_is_known_to_have_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    stood = standstills(monkeypatch)
    assert stood.vigil(life(C), may_restart=True) is not None
    others = [life(None), life(C, adopted=True), life(snapshot(1, at_work=False)), life(snapshot(1, at_work=None))]
    assert [stood.vigil(other, may_restart=True) for other in others] == [None] * 4
    assert standstills(monkeypatch, limit_s=None).vigil(life(C), may_restart=True) is None


def ids(chosen: tuple[Any, ...]) -> list[str]:
    return [one.id for one in chosen]


def test_one_older_is_tried_then_the_newest_again_and_no_more() -> None:
    fallback = Fallback()
    assert ids(fallback.choose(C, (C, B, A))) == ["2", "1", "3"]
    assert ids(fallback.choose(B, (C, B, A))) == ["3", "2", "1"]
    for _ in range(3):
        assert fallback.choose(C, (C, B, A)) == ()


def test_an_older_one_that_was_idle_or_of_which_nothing_is_known_is_not_tried() -> None:
    snapshots = (C, snapshot(2, at_work=False), snapshot(1, at_work=None))
    assert Fallback().choose(C, snapshots) == ()


def test_where_no_older_one_could_be_restored_it_is_left_as_it_is() -> None:
    fallback = Fallback()
    fallback.choose(C, (C, B))
    assert fallback.choose(C, (C, B)) == ()


def test_once_one_has_moved_the_next_that_stands_still_is_a_new_case() -> None:
    fallback = Fallback()
    fallback.choose(C, (C, B, A))
    fallback.forget()
    assert ids(fallback.choose(D, (D, C, B))) == ["3", "2", "4"]
