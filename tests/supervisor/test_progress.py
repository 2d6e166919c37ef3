"""A training that crashes again and again: does it get anywhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from criu_train.cell.records import Ended
from criu_train.supervisor.progress import Progress
from criu_train.supervisor.watching import Outcome


def life(snapshot: str | None = None) -> Any:
    return SimpleNamespace(snapshot=SimpleNamespace(id=snapshot) if snapshot else None)


def died(lived_s: float, *snapshots: tuple[str, float]) -> Outcome:
    return Outcome("ended", Ended(code=1), lived_s, snapshots)


def test_a_first_life_with_a_snapshot_is_progress() -> None:
    assert Progress().made(life(), died(100, ("a", 90)))


def test_a_life_without_a_snapshot_is_none() -> None:
    assert not Progress().made(life(), died(100))


def test_a_crash_at_the_same_age_is_no_progress_however_many_snapshots_lie_on_the_way() -> None:
    progress = Progress()
    assert progress.made(life(), died(100, ("a", 30), ("b", 60), ("c", 90)))
    assert not progress.made(life("c"), died(10))
    assert not progress.made(life("b"), died(40, ("d", 29)))
    assert not progress.made(life("a"), died(71, ("e", 30), ("f", 60)))


def test_a_later_crash_is_progress() -> None:
    progress = Progress()
    progress.made(life(), died(100, ("a", 90)))
    assert progress.made(life("a"), died(200, ("b", 150)))


def test_an_old_training_that_is_killed_now_and_then_makes_progress_each_time() -> None:
    progress = Progress()
    progress.made(life(), died(1_000_000, ("1", 999_000)))
    for number in range(1, 6):
        assert progress.made(life(str(number)), died(5_000, (str(number + 1), 4_000)))
