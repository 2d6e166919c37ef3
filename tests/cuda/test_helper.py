"""Processes end at any moment, also while GPU memory is put back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import cast

import pytest

from criu_train.cuda import helper
from criu_train.cuda.driver import Driver, DriverError, State


class Forgetful:
    """A driver that knows nothing of anybody, as of processes that have ended."""

    def restore_thread(self, pid: int) -> int | None:
        raise DriverError("CUDA_ERROR_INVALID_VALUE while looking at it")

    def state(self, pid: int) -> State:
        raise DriverError("CUDA_ERROR_INVALID_VALUE while looking at it")


DRIVER = cast("Driver", Forgetful())


@pytest.fixture
def zombie() -> Iterator[int]:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


def test_whoever_has_ended_keeps_nobody_from_getting_a_gpu_back(zombie: int) -> None:
    assert helper._owners(DRIVER, [zombie]) == []
    helper._give_back_unless_gone(DRIVER, zombie)


def test_what_the_driver_refuses_to_somebody_who_lives_is_told() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            with pytest.raises(DriverError):
                helper._owners(DRIVER, [process.pid])
            with pytest.raises(DriverError):
                helper._give_back_unless_gone(DRIVER, process.pid)
        finally:
            process.kill()
