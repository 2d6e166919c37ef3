"""Listing snapshots while others write and remove them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from store_samples import add

from criu_train.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


def test_a_listing_never_fails_while_snapshots_come_and_go(store: Store) -> None:
    add(store)
    over = threading.Event()
    problems: list[str] = []

    def change() -> None:
        for _ in range(25):
            add(store)
            store.new_draft("run-1", "timer").discard("no")
            store.new_draft("run-1", "timer").remove()
            store.prune(1)
        over.set()

    writer = threading.Thread(target=change)
    writer.start()
    while not over.is_set():
        for one in (*store.listing(), *store.snapshots()):
            if one.status != "complete" and one.reason not in ("it is being written now", "no", "its dump was cut off"):
                problems.append(str(one.reason))
    writer.join()
    assert problems == []
