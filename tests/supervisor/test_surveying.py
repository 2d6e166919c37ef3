"""A dump waits for what surrounds the training no longer than told, and for nothing that hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import add

from criu_train.store.environment import CodeVersion, Environment
from criu_train.store.state import Run
from criu_train.store.store import Store
from criu_train.supervisor import surveying
from criu_train.supervisor.surveying import survey_in_time

pytestmark = pytest.mark.timeout(30)

FIRST = Environment(code=CodeVersion("ab" * 20, "main", False))
LATER = Environment(code=CodeVersion("ab" * 20, "main", False), packages={"/x/site-packages": {"six": "1"}})
RUN = Run(id="run-1", command=("python",), cwd="/", started_at="2026-11-21T20:45:12Z")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A survey that does not come to an end before the test does; a number for each that was begun."""
    over, begun = threading.Event(), list[int]()

    def hang(*_: object) -> None:
        begun.append(1)
        over.wait()

    monkeypatch.setattr(surveying, "survey", hang)
    yield begun
    over.set()
    for thread in threading.enumerate():
        if thread.name == "survey":
            thread.join(5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


def look(earlier: list[Path], limit_s: float = 0.1) -> Environment | None:
    return asyncio.run(survey_in_time([1], RUN, earlier, limit_s))


def test_the_survey_gets_what_the_newest_earlier_snapshot_of_the_run_knew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(surveying, "survey", lambda *arguments: asked.append(arguments) or LATER)
    add(store, run="run-0", environment=FIRST)
    assert look(store.earlier(), 5) == LATER
    add(store, environment=FIRST)
    add(store, environment=None)
    (store.earlier()[0] / "manifest.json").write_text("{")
    assert look(store.earlier(), 5) == LATER
    assert asked == [([1], "/", None), ([1], "/", FIRST)]


def test_one_that_hangs_is_left_behind_and_what_was_known_is_taken(store: Store, hanging: list[int]) -> None:
    add(store, environment=FIRST)
    add(store, environment=LATER)
    began = time.monotonic()
    assert look(store.earlier()) == LATER
    assert look([]) is None
    assert time.monotonic() - began < 10
    assert hanging == [1]  # while it hangs no other one is begun


def test_one_that_fails_leaves_what_was_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveying, "survey", lambda *_: None)
    assert look([], 5) is None
    add(store, environment=FIRST)
    assert look(store.earlier(), 5) == FIRST


def test_an_answer_that_comes_too_late_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[object] = []

    async def late() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: failed.append(told))
        over = threading.Event()
        monkeypatch.setattr(surveying, "survey", lambda *_: over.wait() and LATER)
        assert await survey_in_time([1], RUN, [], 0.05) is None
        over.set()
        await asyncio.sleep(0.1)

    asyncio.run(late())
    assert failed == []
