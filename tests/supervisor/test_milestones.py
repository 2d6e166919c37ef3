"""Dumps after so many steps or epochs, by what a training tells."""

from __future__ import annotations

import pytest

from criu_train.progress.line import NOTHING, Told
from criu_train.supervisor.milestones import Milestones
from criu_train.supervisor.schedule import Schedule


def test_so_many_steps_after_the_last_dump_the_next_one_is_due() -> None:
    milestones = Milestones(100, None)
    assert [milestones.due(Told(step)) for step in (0, 50, 99, 100)] == [None, None, None, "step"]
    milestones.dumped(Told(110))
    assert [milestones.due(Told(step)) for step in (150, 209, 210)] == [None, None, "step"]


def test_steps_that_begin_anew_with_each_epoch_are_counted_on() -> None:
    milestones = Milestones(100, None)
    due = [milestones.due(Told(step)) for epoch in range(3) for step in range(0, 51, 10)]
    assert due.index("step") == 11


def test_steps_made_while_the_dump_was_on_its_way_count_for_the_next() -> None:
    milestones = Milestones(100, None)
    milestones.due(Told(0))
    milestones.due(Told(100))
    milestones.due(Told(130))
    milestones.dumped(Told(105))
    assert milestones.due(Told(204)) is None
    assert milestones.due(Told(205)) == "step"


def test_a_dump_of_a_later_step_than_was_seen_is_followed_by_as_many_steps() -> None:
    milestones = Milestones(100, None)
    for step in (0, 240):
        milestones.due(Told(step))
    milestones.dumped(Told(260))
    assert [milestones.due(Told(step)) for step in (250, 359, 360)] == [None, None, "step"]


@pytest.mark.parametrize("every", [1, 2])
def test_a_dump_is_due_whenever_so_many_epochs_have_begun_since_the_last(every: int) -> None:
    milestones = Milestones(None, every)
    told, due = [0.0, 0.5, 0.98, 1.0, 1.5, 2.02, 2.5], []
    for epoch in told:
        if trigger := milestones.due(Told(epoch=epoch)):
            assert trigger == "epoch"
            due.append(epoch)
            milestones.dumped(Told(epoch=epoch))
    assert due == ([1.0, 2.02] if every == 1 else [2.02])


def test_a_dump_that_fails_is_not_tried_again_at_once() -> None:
    schedule = Schedule(None, None, milestones=Milestones(10, None), told=lambda: told)
    told = Told(0)
    assert schedule.due_now() is None
    told = Told(12)
    assert schedule.due_now() == "step"
    schedule.dumped(began=0.0)
    assert schedule.due_now() is None
    told = Told(22)
    assert schedule.due_now() == "step"


def test_where_nothing_is_told_nothing_is_due_and_who_wants_nothing_never_looks() -> None:
    assert Milestones(1, 1).due(NOTHING) is None
    assert Schedule(None, None).pause_s is None
    assert Schedule(None, None, milestones=Milestones(1, None)).pause_s == 0.25
    assert Schedule(60, None, lambda: 0.0, milestones=Milestones(1, None)).pause_s == 0.25
