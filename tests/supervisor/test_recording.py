"""A life's progress, written down while it lasts."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from criu_train.store.event_schema import misfits
from criu_train.store.events import EventLog
from criu_train.supervisor.gauge import Gauge
from criu_train.supervisor.recording import Recorder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.log"


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl", "a")


def began(days: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def told(events: EventLog) -> list[Any]:
    assert not [problem for event in events.read() for problem in misfits(event)]
    return [(event["step"], event["metrics"]) for event in events.read() if event["event"] == "progress"]


async def until_told(events: EventLog, count: int) -> None:
    async with asyncio.timeout(10):
        while len(told(events)) < count:
            await asyncio.sleep(0.01)


async def test_progress_is_written_once_for_each_change(output: Path, events: EventLog) -> None:
    async with Recorder(Gauge(output), events, began(), pause_s=0.02):
        output.write_text("step 1 loss 0.5\n")
        await until_told(events, 1)
        await asyncio.sleep(0.1)
        with output.open("a") as file:
            file.write("step 2 loss 0.4\n")
        await until_told(events, 2)
    assert told(events) == [(1, {"loss": 0.5}), (2, {"loss": 0.4})]


async def test_the_last_step_of_a_life_is_written_however_soon_it_ends(output: Path, events: EventLog) -> None:
    async with Recorder(Gauge(output), events, began()):
        output.write_text("step 1 loss 0.5\n")
        await asyncio.sleep(0)
        output.write_text("step 1 loss 0.5\nstep 2 loss 0.4\n")
    assert told(events)[-1] == (2, {"loss": 0.4})


async def test_a_run_of_weeks_is_written_down_seldom(output: Path, events: EventLog) -> None:
    output.write_text("step 1\n")
    async with Recorder(Gauge(output), events, began(days=20), pause_s=0.01):
        await until_told(events, 1)
        for step in range(2, 20):
            with output.open("a") as file:
                file.write(f"step {step}\n")
            await asyncio.sleep(0.02)
        assert [step for step, _ in told(events)] == [1]
    assert [step for step, _ in told(events)] == [1, 19]


async def test_who_looks_more_often_writes_no_more(output: Path, events: EventLog) -> None:
    output.write_text("step 1\n")
    gauge = Gauge(output)
    async with Recorder(gauge, events, began(), pause_s=60, look_s=0.01):
        await until_told(events, 1)
        for step in range(2, 6):
            output.write_text(f"step {step}\n" * step)
            async with asyncio.timeout(10):
                while gauge.told.step != step:
                    await asyncio.sleep(0.01)
        assert [step for step, _ in told(events)] == [1]
    assert [step for step, _ in told(events)] == [1, 5]


async def test_on_a_busy_machine_it_looks_as_often(output: Path, events: EventLog) -> None:
    class Slow(Gauge):
        def update(self) -> None:
            time.sleep(0.02)  # others have the processor
            super().update()

    async with Recorder(Slow(output), events, began(), pause_s=0.01):
        for step in range(1, 4):
            output.write_text(f"step {step}\n" * step)
            await until_told(events, step)
    assert [step for step, _ in told(events)] == [1, 2, 3]


async def test_a_training_that_tells_nothing_has_no_progress(output: Path, events: EventLog) -> None:
    output.write_text("hello\n")
    async with Recorder(Gauge(output), events, began(), pause_s=0.01):
        await asyncio.sleep(0.05)
    assert not told(events)


async def test_what_goes_wrong_in_it_is_no_failure(output: Path, events: EventLog) -> None:
    output.write_text("step a\n")
    gauge = Gauge(output, re.compile(r"step (?P<step>\w)"), overlay=lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    async with Recorder(gauge, events, began(), pause_s=0.01):
        await asyncio.sleep(0.05)
    assert not events.read()
