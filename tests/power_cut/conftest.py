"""The system of the virtual machine: the project's own image, a kernel, and a training."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, WORKLOADS

sys.path.insert(0, str(ROOT / "tests" / "container"))

from images import building_place

from power_cut.machine import Machine, make_system, unpacked_kernel

TRAINING = "usr/src/training"


@pytest.fixture
def machine(place: Path) -> Iterator[Machine]:
    training = place / "extra" / TRAINING
    training.mkdir(parents=True)
    for name in ("plain.py", "rest.py"):
        shutil.copy(WORKLOADS / name, training)
    with building_place() as builder, unpacked_kernel(place / "kernel") as kernel:
        image = builder.build(ROOT / "Dockerfile", ROOT)
        make_system(image.layers, kernel, place / "extra", place / "system.img")
    machine = Machine(place, place / "system.img", place / "kernel")
    yield machine
    machine.cut()
