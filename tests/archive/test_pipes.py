"""Bytes are lent to the reader of a pipe: nobody copies them for it, and they are given back when it has them all."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from criu_train.archive.pipes import StoppedError, StopSign, lend_all


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    yield theirs, ours
    for fd in (theirs, ours):
        try:
            os.close(fd)
        except OSError:
            continue


def test_a_slow_reader_gets_every_byte_though_the_memory_is_used_again_at_once(pipe: tuple[int, int]) -> None:
    theirs, ours = pipe
    got = bytearray()

    def read() -> None:
        while data := os.read(theirs, 10_000):
            got.extend(data)
            time.sleep(0.0005)

    reader = threading.Thread(target=read)
    reader.start()
    memory = bytearray(300_001)
    expected = bytearray()
    for value in range(1, 4):
        memory[:] = bytes([value]) * len(memory)
        lend_all(ours, memoryview(memory), StopSign())
        expected += memory
    memory[:] = bytes(len(memory))
    os.close(ours)
    reader.join(30)
    assert got == expected


def test_it_ends_when_nobody_reads_any_more(pipe: tuple[int, int]) -> None:
    theirs, ours = pipe
    threading.Timer(0.2, os.close, [theirs]).start()
    with pytest.raises(BrokenPipeError):
        lend_all(ours, memoryview(bytearray(1 << 20)), StopSign())


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_it_ends_when_told_to_stop(pipe: tuple[int, int], size: int) -> None:
    stop = StopSign()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(StoppedError):
        lend_all(pipe[1], memoryview(bytearray(size)), stop)


def test_nothing_to_lend_is_no_trouble(pipe: tuple[int, int]) -> None:
    lend_all(pipe[1], memoryview(bytearray()), StopSign())
