"""How far the training is, and how fast it makes its steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from criu_train.progress.line import NOTHING, Told
from criu_train.supervisor.gauge import Gauge


class Course:
    """A training with a clock of its own; it prints its steps."""

    def __init__(self, output: Path) -> None:
        self.now, self.hooks = 100.0, NOTHING
        self._output = output
        self.gauge = Gauge(output, clock=lambda: self.now, overlay=lambda: self.hooks)

    def goes(self, step: int, seconds: float) -> None:
        self.now += seconds
        with self._output.open("a") as file:
            file.write(f"step {step} loss 0.5\n")
        self.gauge.update()

    def rests(self, seconds: float) -> None:
        self.now += seconds
        self.gauge.update()

    def is_cut(self, size: int) -> None:
        with self._output.open("rb+") as file:
            file.truncate(size)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course(tmp_path / "output.log")


def test_nothing_is_known_before_two_steps_are(course: Course) -> None:
    course.gauge.update()
    assert course.gauge.steps_per_second is None and not course.gauge.told
    course.goes(10, 2)
    assert course.gauge.steps_per_second is None
    course.goes(20, 2)
    assert course.gauge.steps_per_second == 5.0


def test_the_speed_is_that_of_the_last_minute(course: Course) -> None:
    for step in range(100):
        course.goes(step, 2)
    assert course.gauge.steps_per_second == pytest.approx(0.5)
    for step in range(100, 1100, 10):
        course.goes(step, 2)
    assert course.gauge.steps_per_second == pytest.approx(5.0)


def test_steps_that_take_minutes_have_a_speed_too(course: Course) -> None:
    for step in range(1, 5):
        course.goes(step, 300)
        course.rests(200)
    assert course.gauge.steps_per_second == pytest.approx(1 / 500)
    course.rests(700)
    assert course.gauge.steps_per_second == pytest.approx(1 / 500)
    course.rests(2000)
    assert course.gauge.steps_per_second == 0.0


def test_a_training_that_stands_still_makes_no_steps(course: Course) -> None:
    for step in range(10):
        course.goes(step, 2)
    course.rests(61)
    assert course.gauge.steps_per_second == 0.0


def test_a_restore_makes_no_speed_negative(course: Course) -> None:
    for step in range(10, 20):
        course.goes(step, 2)
    course.is_cut(17)
    course.gauge.begin_anew()
    assert course.gauge.steps_per_second is None and not course.gauge.told
    course.rests(2)
    assert course.gauge.told.step == 10 and course.gauge.steps_per_second is None
    course.goes(11, 1)
    assert course.gauge.steps_per_second == 1.0


def test_steps_that_begin_again_with_each_epoch_make_no_speed_negative(course: Course) -> None:
    speeds = []
    for _ in range(4):
        for step in range(1, 6):
            course.goes(step, 1)
            speeds.append(course.gauge.steps_per_second)
    assert set(speeds) == {None, 1.0}


def test_what_hooks_report_is_laid_over_what_the_output_tells(course: Course) -> None:
    course.goes(10, 2)
    course.hooks = Told(11, 0.5, {"acc": 0.25})
    course.rests(2)
    assert course.gauge.told == Told(11, 0.5, {"loss": 0.5, "acc": 0.25})
