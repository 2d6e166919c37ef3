"""When dumps come by themselves, told by a clock that the test moves."""

from __future__ import annotations

import pytest

from criu_train.supervisor.schedule import Schedule


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_timer_counts_from_the_beginning_of_the_last_dump(clock: Clock) -> None:
    schedule = Schedule(60, None, clock)
    assert (schedule.left, schedule.trigger) == (60, "timer")
    clock.now += 62
    assert schedule.left == 0
    schedule.dumped(began=160)
    assert schedule.left == 58


def test_a_dump_that_took_long_leaves_half_an_interval_of_peace(clock: Clock) -> None:
    schedule = Schedule(60, None, clock)
    clock.now += 115
    schedule.dumped(began=160)
    assert schedule.left == 30


def test_a_trial_comes_before_a_timer_that_is_far_away_and_only_once(clock: Clock) -> None:
    schedule = Schedule(3600, 60, clock)
    assert (schedule.left, schedule.trigger) == (60, "trial")
    schedule.dumped(began=160)
    assert (schedule.left, schedule.trigger) == (3660, "timer")


def test_a_dump_that_was_asked_for_is_trial_enough(clock: Clock) -> None:
    schedule = Schedule(3600, 60, clock)
    clock.now += 10
    schedule.dumped(began=110)
    assert (schedule.left, schedule.trigger) == (3600, "timer")


def test_a_timer_that_comes_soon_is_trial_enough(clock: Clock) -> None:
    assert Schedule(30, 60, clock).trigger == "timer"


def test_without_a_timer_there_is_one_trial_and_then_nothing(clock: Clock) -> None:
    schedule = Schedule(None, 60, clock)
    assert schedule.left == 60
    schedule.dumped(began=160)
    assert schedule.left is None


def test_without_both_nothing_comes_by_itself(clock: Clock) -> None:
    assert Schedule(None, None, clock).left is None
