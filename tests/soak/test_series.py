"""What counts as growing."""

from __future__ import annotations

from collections.abc import Iterable

from soak.sampling import Reading
from soak.series import Series


def series(values: Iterable[float], life: str = "1", tolerated: float = 1.0) -> Series:
    one = Series("descriptors", tolerated)
    for dumps, value in enumerate(values):
        one.add(2.0 * dumps, dumps, Reading(value, life))
    return one


def test_what_stays_is_flat() -> None:
    assert series([16, 16, 17, 16] * 3).flat


def test_one_more_a_dump_is_found_in_ten_dumps() -> None:
    assert not series(range(16, 26)).flat


def test_what_a_process_takes_at_first_and_then_keeps_is_flat() -> None:
    assert series([10, 200, 900, 1000, 1000, 1000, 1000, 1000, 1000]).flat


def test_a_new_process_is_no_growth() -> None:
    one = series([16] * 10)
    one.points += series([30] * 10, life="2").points
    assert one.flat


def test_one_life_that_grows_is_found_among_others() -> None:
    one = series([16] * 10)
    one.points += series(range(16, 26), life="2").points + series([16] * 10, life="3").points
    assert not one.flat


def test_a_life_of_a_few_dumps_tells_nothing() -> None:
    assert not series([16, 20, 24, 28, 32]).lives
