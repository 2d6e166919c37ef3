"""What a snapshot would not carry is told once before the first dump, and nothing waits for it in vain."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from criu_train.doctor.preflight import Finding
from criu_train.store.events import EventLog
from criu_train.supervisor import foreseeing
from criu_train.supervisor.foreseeing import Foresight

pytestmark = pytest.mark.timeout(30)

FOUND = (
    Finding("blocks", "a task uses userfaultfd", "it can't be read", "stop using it"),
    Finding("warns", "a process has left the tree", "its parent has ended", "start it in the foreground"),
    Finding("fine", "pipes: 3", "both ends are there"),
)


class Listener:
    def __init__(self) -> None:
        self.told: list[tuple[str, str | None]] = []

    def warning(self, what: str, tip: str | None = None) -> None:
        self.told.append((what, tip))


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


@pytest.fixture
def foresight(listener: Listener, events: EventLog) -> Foresight:
    return Foresight(events, cast(Any, listener))


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    over = threading.Event()
    monkeypatch.setattr(foreseeing, "scan", lambda _: over.wait() and ())
    yield
    over.set()


def test_what_is_not_just_fine_is_told_and_written_down_once(
    foresight: Foresight, listener: Listener, events: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(foreseeing, "scan", lambda pids: asked.append(pids) or FOUND)

    async def twice() -> None:
        await foresight.tell_once(4242)
        await foresight.tell_once(4242)

    asyncio.run(twice())
    assert asked == [[4242]]
    assert listener.told == [
        ("snapshots would not work: a task uses userfaultfd", "stop using it"),
        ("a process has left the tree", "start it in the foreground"),
    ]
    written = [{name: event[name] for name in ("event", "level", "what", "why", "tip")} for event in events.read()]
    assert written == [{"event": "preflight", **vars(finding)} for finding in FOUND[:2]]


def test_a_look_that_hangs_is_left_behind(foresight: Foresight, listener: Listener, hanging: None) -> None:
    began = time.monotonic()
    asyncio.run(foresight.tell_once(4242, limit_s=0.1))
    assert time.monotonic() - began < 5
    assert listener.told == []


def test_a_look_that_fails_harms_nobody(
    foresight: Foresight, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> tuple[Finding, ...]:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(foreseeing, "scan", fail)
    asyncio.run(foresight.tell_once(4242, limit_s=5))
    assert listener.told == []


def test_a_tree_that_is_gone_has_nothing_to_tell(foresight: Foresight, listener: Listener) -> None:
    asyncio.run(foresight.tell_once(1 << 22, limit_s=5))
    assert listener.told == []
