"""A fresh workshop for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from workshop import Workshop


@pytest.fixture
def shop(place: Path) -> Iterator[Workshop]:
    workshop = Workshop(place)
    yield workshop
    workshop.kill()
