"""A restored training that is gone again when it is looked at: what its end tells decides, not when it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from criu_train.cell.records import Ended
from criu_train.errors import RestoreFailedError
from criu_train.supervisor import restore_attempt
from criu_train.supervisor.restore_attempt import _see_alive as see_alive
from criu_train.supervisor.restore_errors import CutShortError


@dataclass
class Gone:
    """A cell whose root task is there no more."""

    root_pid: int = 0
    ended: asyncio.Future[Ended] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def tells(self, code: int, after_s: float) -> Any:
        asyncio.get_running_loop().call_later(after_s, self.ended.set_result, Ended(code=code))
        return cast(Any, self)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_attempt, "_ALIVE_AFTER_S", 0.05)


@pytest.mark.parametrize("after_s", [0.0, 0.2], ids=["at once", "late"])
@pytest.mark.parametrize("code", [0, 1])
async def test_one_that_came_to_its_own_end_was_restored(code: int, after_s: float) -> None:
    await see_alive(Gone().tells(code, after_s))


@pytest.mark.parametrize("after_s", [0.0, 0.2], ids=["at once", "late"])
async def test_one_that_was_killed_was_not(after_s: float) -> None:
    with pytest.raises(RestoreFailedError, match="killed by signal 11 at once"):
        await see_alive(Gone().tells(-11, after_s))
    with pytest.raises(CutShortError):
        await see_alive(Gone().tells(-9, after_s))


async def test_one_of_which_nobody_tells_anything_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_attempt, "_END_IS_TOLD_S", 0.05)
    with pytest.raises(RestoreFailedError, match="is not there"):
        await see_alive(cast(Any, Gone()))
