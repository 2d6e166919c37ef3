"""Whether processes of the tree are at either end of a TCP connection, as the kernel lists them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

_LISTENING, _CLOSED = "0A", "07"  # enum tcp_state in the kernel's tcp_states.h, as /proc/net/tcp prints it


def has_tcp_connections(pids: Sequence[int]) -> bool:
    """True when any of the processes (host PIDs) holds a connection in any state but listening or closed.

    All of a tree share one network namespace: the first process's table is everybody's.
    """
    connected = _connected_inodes(pids)
    return bool(connected) and any(inode in connected for pid in pids for inode in _socket_inodes(pid))


def _connected_inodes(pids: Sequence[int]) -> set[str]:
    inodes: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    columns = line.split()
                    if columns[3] not in (_LISTENING, _CLOSED):
                        inodes.add(columns[9])
            break
    return inodes


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(descriptor)  # noqa: PTH115 - what it says is no path
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes
