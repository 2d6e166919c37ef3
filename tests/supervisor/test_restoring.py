"""Looking at the machine before a restore holds up nobody else."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from store_samples import add

from criu_train.cell.cell import Cell
from criu_train.criu.find import Criu
from criu_train.store.store import Store
from criu_train.supervisor import fitting, restore_attempt
from criu_train.supervisor.feeding import Feeder
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.restore_context import RestoreContext
from criu_train.supervisor.restoring import Restorer
from criu_train.workspace.environment import Finding
from criu_train.workspace.listing import Listing


async def unfit(*_: Any) -> Cell:
    pytest.fail("what is unfit must not be restored")


async def test_the_loop_goes_on_while_a_snapshot_is_compared_with_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create_or_open(tmp_path / "store")
    snapshot = add(store)
    asked = threading.Event()
    loop_went_on = threading.Event()

    def compare(*_: object, **__: object) -> tuple[Finding, ...]:
        asked.set()
        assert loop_went_on.wait(5), "the loop stood still meanwhile"
        return (Finding(True, "another processor", "get the old one"),)

    async def checked(*_: object) -> None:
        pass

    monkeypatch.setattr(fitting, "compare", compare)
    monkeypatch.setattr(fitting, "compare_data", lambda *_: ())
    monkeypatch.setattr(fitting, "verify", lambda *_, **__: ())
    monkeypatch.setattr(restore_attempt, "listing_of", lambda _: Listing(1, "boot", (), ()))
    monkeypatch.setattr(Feeder, "check", checked)
    context = RestoreContext(
        store=store,
        criu=Criu(("criu",), "4.2.1", "system", None),
        keeper=cast(Any, None),
        options=cast(RunOptions, None),
        runtime=tmp_path,
        new_cell=unfit,
        new_hooks=lambda *_: None,
    )
    restorer = Restorer(context)
    restoring_task = asyncio.ensure_future(restorer.restore_first_that_works([snapshot]))
    while not asked.is_set():
        await asyncio.sleep(0.01)
    loop_went_on.set()
    assert await restoring_task is None
    assert [one.reason for one in restorer.attempts] == ["another processor"]
