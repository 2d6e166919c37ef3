"""What becomes of a snapshot's TCP connections on this machine, and of its output in another store."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from criu_train.criu.connections import FILES, Address, Reconnected, TcpPolicy, reconnect
from criu_train.criu.lingering import forget, ports_of
from criu_train.criu.renamed import rename
from criu_train.criu.timers import rearm
from criu_train.errors import RestoreFailedError
from criu_train.store.snapshot import Snapshot
from criu_train.supervisor.feeding import CHECK_THE_DISK

_IP = (socket.AF_INET, socket.AF_INET6)
_IPV4, _ANY_PORT = 4, 9
_NAMED = 5  # peers in a line
_LINGERING_S, _PAUSE_S = 65.0, 0.2  # TCP_TIMEWAIT_LEN is a minute


def reconnect_here(
    snapshot: Snapshot, pycriu: Path | None, policy: TcpPolicy, renamed: Mapping[str, str]
) -> Reconnected:
    """Decide with the addresses that this machine has now; ``renamed``: files by their names at the dump.

    Raises RestoreFailedError for a damaged image.
    """
    local = [one.address for interface in psutil.net_if_addrs().values() for one in interface if one.family in _IP]
    try:
        original = snapshot.read_image(FILES)
        data = rearm(rename(original, pycriu, renamed), pycriu)
        found = reconnect(data, pycriu, policy=policy, local=local, reachable=is_reachable)
        return found if found.image is not None or data is original else replace(found, image=data)
    except Exception as error:  # protobuf's own errors differ between its implementations
        raise RestoreFailedError(f"corrupt: {FILES}: {error}", tip=CHECK_THE_DISK) from error


async def free_ports(snapshot: Snapshot, reconnected: Reconnected, pycriu: Path | None) -> None:
    """What the kernel remembers of killed processes' connections must not keep the snapshot's ports from it.

    Where the kernel can't be told to forget them, this waits until it does by itself.
    """
    with contextlib.suppress(OSError):
        ports = ports_of(reconnected.image or snapshot.read_image(FILES), pycriu)
        end = time.monotonic() + _LINGERING_S
        while await asyncio.to_thread(forget, ports) > 0 and time.monotonic() < end:
            await asyncio.sleep(_PAUSE_S)


def is_reachable(address: Address) -> bool:
    """Whether a route leads there. A datagram socket that connects sends nothing: it only asks for one."""
    if address.is_link_local:  # nobody knows by which interface
        return True
    family = socket.AF_INET if address.version == _IPV4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((str(address), _ANY_PORT))
        return True
    return False


def notes_of(reconnected: Reconnected) -> tuple[str, ...]:
    """What a person may want to know of it."""
    notes = []
    if closed := reconnected.closed:
        more = f" and {len(closed) - _NAMED} more" if len(closed) > _NAMED else ""
        notes.append(f"connections that come back closed: {', '.join(closed[:_NAMED])}{more}")
    if reconnected.moved:
        notes.append(f"addresses that can't be used any more, others instead: {', '.join(reconnected.moved)}")
    return tuple(notes)
