"""A store of its own for each test, and ``criu-train snapshot`` on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from snapshot_calls import Call, run

from criu_train.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return partial(run, tmp_path / "store")
