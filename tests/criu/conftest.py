"""A CRIU, and trees dumped with it."""

from __future__ import annotations

import pytest

from criu_train.criu.find import Criu, find_criu


@pytest.fixture(scope="session")
def criu() -> Criu:
    return find_criu()
