"""Frames in memory, for as long as a restore lasts."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator

import pytest

from criu_train.archive.frames import Frames

SIZE = 1 << 12


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Only what nobody refers to any more goes."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_once_closed_they_hold_no_memory_though_somebody_knows_them_still() -> None:
    buffers: list[weakref.ref[memoryview]] = []

    def load(number: int, buffer: memoryview) -> int:
        buffers.append(weakref.ref(buffer))
        buffer[0] = number
        return SIZE

    frames = Frames(load, size=SIZE, limit=2)
    for number in range(4):
        with frames.hold(number, Counter()) as frame:
            assert frame[0] == number
    del frame
    assert any(buffer() is not None for buffer in buffers)
    frames.close()
    assert all(buffer() is None for buffer in buffers)
