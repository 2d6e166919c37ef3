"""Programs that people really run are killed and go on, and leave what they leave undisturbed (scripts/zoo)."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoo.catalog import PROGRAMS
from zoo.interrupt import carry, refuse
from zoo.program import Program

pytestmark = [pytest.mark.criu, pytest.mark.zoo, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("program", [one for one in PROGRAMS if not one.refused], ids=lambda one: one.name)
def test_a_program_that_is_killed_leaves_what_it_leaves_undisturbed(program: Program, place: Path) -> None:
    carry(program, place, kills=1)


@pytest.mark.parametrize("program", [one for one in PROGRAMS if one.refused], ids=lambda one: one.name)
def test_a_program_that_cannot_be_carried_is_refused_with_the_reason(program: Program, place: Path) -> None:
    refuse(program, place)
