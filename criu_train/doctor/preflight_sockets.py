"""Sockets as the kernel lists them: who is connected with whom.

The lists are those of one network namespace. A netlink socket belongs to the namespace of the thread that made it, so
a thread enters that of the tree for as long as it takes (sock_diag(7), unix_diag.h).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_NEWNET = 0x40000000
_SOCK_DIAG, _DUMP_REQUEST, _BY_FAMILY, _DONE, _ERROR = 4, 0x301, 20, 3, 2
_SHOW_NAME, _SHOW_PEER = 1, 4
_NAME, _PEER = 0, 2  # attributes of an answer
_ANSWER_BYTES = 1 << 18
_LIMIT_S = 2.0

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
LISTENING, CLOSED = 10, 7  # the kernel's tcp_states.h, for unix sockets too


@dataclass(frozen=True)
class UnixSocket:
    """``peer``: its inode, 0 without one. ``name``: a path, or what comes after the zero byte of an abstract one."""

    kind: int
    state: int
    peer: int
    name: str


@dataclass(frozen=True)
class Connection:
    """``local`` and ``remote``: address and port."""

    state: int
    local: tuple[str, int]
    remote: tuple[str, int]
    waiting: int

    @property
    def shown(self) -> str:
        address, port = self.remote
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def unix_sockets(pid: int) -> dict[int, UnixSocket] | None:
    """All unix sockets of the network namespace of this process by inode; None when the kernel does not tell."""
    found: list[dict[int, UnixSocket]] = []

    def ask() -> None:
        with contextlib.suppress(OSError, struct.error):
            if _enter(pid):
                found.append(dict(_ask()))

    # A thread of its own: ours stays where it is.
    thread = threading.Thread(target=ask, name="unix sockets", daemon=True)
    thread.start()
    thread.join(_LIMIT_S)
    return found[0] if found else None


def _enter(pid: int) -> bool:
    path = f"/proc/{pid}/ns/net"
    if os.path.samefile(path, "/proc/thread-self/ns/net"):  # noqa: PTH121
        return True
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(ctypes.CDLL(None).setns(namespace, _NEWNET) == 0)
    finally:
        os.close(namespace)


def _ask() -> Iterator[tuple[int, UnixSocket]]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as link:
        link.settimeout(_LIMIT_S)
        show = _SHOW_NAME | _SHOW_PEER
        request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, show, 0xFFFFFFFF, 0xFFFFFFFF)
        link.send(struct.pack("=IHHII", 16 + len(request), _BY_FAMILY, _DUMP_REQUEST, 1, 0) + request)
        while True:
            answer = link.recv(_ANSWER_BYTES)
            at = 0
            while at < len(answer):
                size, kind = struct.unpack_from("=IH", answer, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError("the kernel lists no unix sockets")
                yield _parse(answer[at + 16 : at + size])
                at += size + 3 & ~3


def _parse(message: bytes) -> tuple[int, UnixSocket]:
    _, kind, state, _, inode = struct.unpack_from("=BBBBI", message)
    peer, name, at = 0, "", 16
    while at < len(message):
        size, attribute = struct.unpack_from("=HH", message, at)
        value = message[at + 4 : at + size]
        if attribute == _PEER:
            peer = struct.unpack("=I", value)[0]
        elif attribute == _NAME:
            name = value.strip(b"\0").decode(errors="replace")
        at += size + 3 & ~3
    return inode, UnixSocket(kind, state, peer, name)


def connections(pid: int) -> dict[int, Connection]:
    """All TCP sockets of the network namespace of this process by inode."""
    found: dict[int, Connection] = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                waiting = int(fields[4].partition(":")[2], 16)
                found[int(fields[9])] = Connection(int(fields[3], 16), _end(fields[1]), _end(fields[2]), waiting)
    return found


def _end(text: str) -> tuple[str, int]:
    """An IPv4 address in an IPv6 socket is told as IPv4: its other end may be a socket of either family."""
    digits, _, port = text.partition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    if len(raw) == 4:
        return str(IPv4Address(raw)), int(port, 16)
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address), int(port, 16)


def protocol(descriptor: str) -> str:
    """What kind of socket this descriptor (a path in /proc) is, as the kernel calls it; empty when it does not say."""
    with contextlib.suppress(OSError):
        return os.getxattr(descriptor, "system.sockprotoname").rstrip(b"\0").decode(errors="replace")
    return ""
