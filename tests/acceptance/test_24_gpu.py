"""Trainings on a real GPU are killed and go on, and leave what they leave undisturbed (``scripts/zoo --gpu``)."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from zoo.gpu import PROGRAMS
from zoo.interrupt import carry
from zoo.program import Program

pytestmark = [pytest.mark.criu, pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize("program", [pytest.param(program, id=program.name) for program in PROGRAMS])
def test_a_training_on_a_gpu_that_is_killed_leaves_what_it_leaves_undisturbed(program: Program, place: Path) -> None:
    outcome = carry(program, place)
    if directory := os.environ.get("ZOO_RESULTS"):
        Path(directory, f"{program.name}.json").write_text(json.dumps(asdict(outcome)))
