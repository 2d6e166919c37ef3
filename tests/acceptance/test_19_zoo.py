"""Programs that people really run are killed and go on, and leave what they leave undisturbed.

``scripts/test`` runs one of each kind, ``scripts/zoo`` all. With ``ZOO_RESULTS`` what came of each is written there,
for the table in docs/workloads.md.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from zoo.catalog import PROGRAMS, SHORT
from zoo.interrupt import Outcome, carry, refuse
from zoo.program import Program

pytestmark = [pytest.mark.criu, pytest.mark.zoo, pytest.mark.slow, pytest.mark.timeout(600)]


def note(program: Program, outcome: Outcome) -> None:
    if directory := os.environ.get("ZOO_RESULTS"):
        Path(directory, f"{program.name}.json").write_text(json.dumps(asdict(outcome)))


def marked(program: Program) -> Any:
    return pytest.param(program, id=program.name, marks=[pytest.mark.short] if program.name in SHORT else [])


@pytest.mark.parametrize("program", [marked(program) for program in PROGRAMS])
def test_a_program_that_is_killed_leaves_what_it_leaves_undisturbed(program: Program, place: Path) -> None:
    try:
        outcome = refuse(program, place) if program.refused else carry(program, place)
    except AssertionError as error:
        note(program, Outcome(f"NOT CARRIED: {str(error).partition(chr(10))[0]}"))
        raise
    note(program, outcome)
