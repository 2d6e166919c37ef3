"""How often it pays to take a snapshot."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criu_train.supervisor.interval import USUAL_MTBF_S, Auto, daly, mean_time_between_failures
from criu_train.supervisor.schedule import Schedule

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("pause_s", "mtbf_s", "expected_s"),
    [
        # Young's sqrt(2 C M), and what Daly adds to it and takes from it, computed by hand.
        (0.5, 86400, 293.9388 + 0.1667 + 0.0000 - 0.5),
        (60, 3600, 657.2671 + 20.0 + 0.6086 - 60),
        (7200, 3600, 3600),
    ],
)
def test_the_interval_is_what_the_formula_says(pause_s: float, mtbf_s: float, expected_s: float) -> None:
    assert daly(pause_s, mtbf_s) == pytest.approx(expected_s, rel=1e-4)


@given(pause_s=st.floats(0.01, 100), mtbf_s=st.floats(1000, 1e6))
def test_no_other_interval_loses_less(pause_s: float, mtbf_s: float) -> None:
    def lost(interval_s: float) -> float:  # Daly's equation 20: time to solution, for one unit of work
        return mtbf_s * math.expm1((interval_s + pause_s) / mtbf_s) / interval_s

    best = daly(pause_s, mtbf_s)
    assert lost(best) <= min(lost(best * 0.8), lost(best * 1.25)) * (1 + 1e-9)


def test_without_failures_the_next_dump_comes_when_the_formula_says() -> None:
    clock = Clock()
    auto = Auto(USUAL_MTBF_S, 0.01, clock=clock)
    schedule = Schedule(auto, 60, clock)
    assert (schedule.left, schedule.trigger) == (60, "trial")
    clock.now += 61
    schedule.dumped(clock.now - 1, pause_s=0.4)
    assert schedule.left == pytest.approx(daly(0.4, USUAL_MTBF_S) + 0.4 - 1)


@given(
    pauses=st.lists(st.floats(1, 1.3), min_size=20, max_size=40),
    longer=st.lists(st.floats(5, 6), min_size=1, max_size=20),
    shorter=st.lists(st.floats(1, 1.3), max_size=10),
)
def test_pauses_stay_within_their_share_while_they_become_five_times_as_long(
    pauses: list[float], longer: list[float], shorter: list[float]
) -> None:
    clock = Clock()
    began = clock.now
    schedule = Schedule(Auto(3000, 0.01, clock=clock), 60, clock)
    paused_s = 0.0
    clock.now += 60
    for pause_s in (0.5, *pauses, *longer, *shorter):
        clock.now += schedule.left or 0.0
        started = clock.now
        clock.now += pause_s
        paused_s += pause_s
        schedule.dumped(started, pause_s=pause_s)
    clock.now += schedule.left or 0.0
    assert paused_s <= 0.01 * (clock.now - began)


def test_a_pause_that_is_suddenly_five_times_as_long_is_no_more_than_a_fifth_too_much() -> None:
    clock = Clock()
    began, paused_s, most = clock.now, 0.0, 0.0
    schedule = Schedule(Auto(3000, 0.01, clock=clock), None, clock)
    for pause_s in (*[1.0] * 20, *[5.0] * 20):
        clock.now += schedule.left or 0.0
        started = clock.now
        clock.now += pause_s
        paused_s += pause_s
        schedule.dumped(started, pause_s=pause_s)
        most = max(most, paused_s / (clock.now - began))
    assert most < 0.012


def test_a_dump_that_fails_costs_nothing_and_is_tried_again_an_interval_later() -> None:
    clock = Clock()
    auto = Auto(3600, 0.01, pause_s=0.5, clock=clock)
    schedule = Schedule(auto, None, clock)
    clock.now += 100
    schedule.dumped(clock.now)
    assert schedule.left == pytest.approx(auto.interval_s)


def test_one_pause_of_minutes_does_not_leave_a_day_without_a_snapshot() -> None:
    clock = Clock()
    schedule = Schedule(Auto(USUAL_MTBF_S, 0.01, clock=clock), None, clock)
    clock.now += 3600
    schedule.dumped(clock.now - 600, pause_s=600)
    assert schedule.left is not None and schedule.left <= USUAL_MTBF_S
    schedule = Schedule(Auto(3600, 0.01, clock=clock), None, clock)
    schedule.dumped(clock.now - 600, pause_s=600)
    assert schedule.left is not None and schedule.left <= 3600


def test_the_failures_of_a_run_tell_how_often_it_will_fail() -> None:
    events = [
        {"at": "2026-11-21T12:00:00.000Z", "event": "started", "run": "a"},
        {"at": "2026-11-21T13:00:00.000Z", "event": "interrupted", "run": "b"},
        {"at": "2026-11-21T14:00:00.000Z", "event": "interrupted", "run": "a"},
        {"at": "2026-11-21T15:00:00Z", "event": "died", "run": "a"},
        {"event": "died"},
    ]
    assert mean_time_between_failures(events, "a", NOW) == pytest.approx(2 * 86400 / 3)
    assert mean_time_between_failures(events, "c", NOW) == USUAL_MTBF_S
    assert mean_time_between_failures([{"at": "soon", "run": "c"}], "c", NOW) == USUAL_MTBF_S
