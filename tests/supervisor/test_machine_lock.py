"""One CRIU at a time on a machine: who waits is told that it does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from criu_train.supervisor.machine_lock import machine_lock


async def test_who_must_wait_for_another_job_is_told_so_once(tmp_path: Path) -> None:
    told: list[str] = []

    async def second() -> None:
        async with machine_lock(tmp_path, 10, must_wait=lambda: told.append("waits")):
            told.append("has it")

    async with machine_lock(tmp_path, 10):
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.6)
        assert told == ["waits"]
    await waiting
    assert told == ["waits", "has it"]


async def test_who_need_not_wait_is_told_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    async with machine_lock(tmp_path, 10, must_wait=lambda: told.append("waits")):
        pass
    assert told == []


async def test_another_job_that_keeps_it_too_long_is_an_error(tmp_path: Path) -> None:
    async with machine_lock(tmp_path, 10):
        with pytest.raises(TimeoutError):
            async with machine_lock(tmp_path, 0.2):
                pytest.fail("both have it")
