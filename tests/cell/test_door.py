"""Who knocks at a cell's door is let in once there is nobody else, and gets the lock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from criu_train.cell.channel import Channel
from criu_train.cell.door import knock, make_door
from criu_train.cell.wire import Wire


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Longer than an address of a unix socket may be."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    return directory / "door"


@pytest.fixture
def channel(path: Path, tmp_path: Path) -> Iterator[Channel]:
    """Init's side, while its supervisor lives; the lock is a file that says so."""
    (tmp_path / "lock").write_text("the lock")
    lock = os.open(tmp_path / "lock", os.O_RDONLY)
    wire, supervisor = Wire.pair()
    with make_door(path) as door, selectors.DefaultSelector() as selector, supervisor, contextlib.closing(wire):
        yield Channel(selector, wire, door=door, lock_fd=lock, on_message=lambda: None, on_loss=lambda: None)
    os.close(lock)


async def knocked(channel: Channel, path: Path, *, ready: bool) -> tuple[Wire, int] | None:
    knocking = asyncio.ensure_future(knock(path, 0.0))
    while not knocking.done():
        channel.admit(ready=ready)
        await asyncio.sleep(0.01)
    return knocking.result()


async def test_only_the_owner_can_knock(channel: Channel, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_nobody_comes_in_beside_a_supervisor_or_a_criu_at_work(channel: Channel, path: Path) -> None:
    assert await knocked(channel, path, ready=True) is None
    channel.lose()
    assert await knocked(channel, path, ready=False) is None


async def test_the_next_supervisor_gets_the_lock_and_is_heard_and_told(channel: Channel, path: Path) -> None:
    channel.lose()
    admitted = await knocked(channel, path, ready=True)
    assert admitted is not None and channel.connected
    wire, lock = admitted
    assert os.pread(lock, 100, 0) == b"the lock"
    wire.send("hello", number=1)
    assert channel.receive() == {"kind": "hello", "number": 1}
    channel.tell("here", number=2)
    assert wire.receive() == {"kind": "here", "number": 2}
    assert await knocked(channel, path, ready=True) is None, "one at a time"
    os.close(lock)
    wire.close()
    assert channel.receive() is None
    assert not channel.connected


async def test_where_nobody_is_there_that_is_told(path: Path) -> None:
    with make_door(path):
        pass
    with pytest.raises(ConnectionRefusedError):
        await knock(path, 1.0)
