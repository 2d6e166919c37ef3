"""The outside of a cell's door: made when the cell is, knocked at by a supervisor that comes later."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from criu_train.cell.channel import WELCOME
from criu_train.cell.wire import Wire

_RECORD = 64
_PAUSE_S = 0.1


def make_door(path: Path) -> socket.socket:
    """A socket that nobody but the owner can connect to. Raises OSError."""
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        with _short(path) as address:
            door.bind(address)
        path.chmod(0o600)
        door.listen()
    except OSError:
        door.close()
        raise
    return door


async def knock(path: Path, limit_s: float) -> tuple[Wire, int] | None:
    """Our end of the control channel, and the store's lock as a descriptor.

    Waits while a CRIU is still at work in the cell. None when nobody lets us in: there is another supervisor, or the
    cell is about to end. Raises OSError when nobody is there.
    """
    end = time.monotonic() + limit_s
    while True:
        if (admitted := await asyncio.to_thread(_knock_once, path)) is not None:
            return admitted
        if time.monotonic() >= end:
            return None
        await asyncio.sleep(_PAUSE_S)


def _knock_once(path: Path) -> tuple[Wire, int] | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as stack:
        stack.callback(sock.close)
        sock.settimeout(10.0)
        with _short(path) as address:
            sock.connect(address)
        said, fds, _, _ = socket.recv_fds(sock, _RECORD, 1)
        if said != WELCOME or not fds:
            return None
        sock.setblocking(False)
        stack.pop_all()
        return Wire(sock), fds[0]


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The same path in the 107 bytes that an address may have."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
