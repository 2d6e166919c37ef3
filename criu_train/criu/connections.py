"""TCP connections in the images: those inside the tree come back established, those to the outside come back closed.

After a kill the peer outside has been reset, or has gone on without us. Established again, such a socket would wait for
an answer that never comes; closed, its next use fails, and the program connects anew as after any other loss. CRIU has
one switch for all connections of a tree, so the choice is made in ``files.img``: a socket without a peer is restored as
one that was never connected (``tcp_connection()`` in CRIU's sk-inet.c), for which poll() says hang-up.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple

from criu_train.criu.entries import pack, unpack
from criu_train.criu.schema import image_schema

FILES = "files.img"

TcpPolicy = Literal["close-external", "keep"]
Address = IPv4Address | IPv6Address

_TCP = 6
_CLOSED = 7  # TCP_CLOSE, as in the kernel's tcp_states.h
# The peer has said all it had to say: what waits to be read comes back, and after it the end.
_HEARD_ALL = frozenset((8, 9))  # TCP_CLOSE_WAIT, TCP_LAST_ACK
_LOOPBACK: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
_IPV6_BYTES = 16


class _End(NamedTuple):
    address: Address
    port: int


@dataclass(frozen=True)
class Reconnected:
    """``image``: files.img as CRIU is to read it, None where the one in the snapshot will do.

    ``closed``: peers outside, as ``address:port``, whose connections come back closed. ``moved``: addresses that this
    machine does not have any more, and for which sockets inside the tree use the loopback address instead.
    """

    image: bytes | None = None
    closed: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()


def reconnect(data: bytes, pycriu: Path | None, *, policy: TcpPolicy, local: Collection[str]) -> Reconnected:
    """Decide for every connection in ``files.img``; ``local``: the addresses that this machine has.

    Raises whatever protobuf raises when ``data`` is no such image.
    """
    schema = image_schema(pycriu)
    entries = list(unpack(data, schema.pb.file_entry))
    sockets = [entry.isk for entry in entries if entry.HasField("isk")]
    here = frozenset(_plain(ip_address(name.partition("%")[0])) for name in local)
    inside = {(_source(one), _peer(one)) for one in sockets if _is_connection(one)}
    closed: list[str] = []
    moved: set[Address] = set()
    for one in sockets:
        if not _is_connection(one) or (_peer(one), _source(one)) in inside:
            moved |= _move(one, here)
            continue
        gone = not _is_here(_source(one).address, here)
        if gone or (policy == "close-external" and one.state not in _HEARD_ALL):
            closed.append(_shown(_peer(one)))
            _close(one)
    if not closed and not moved:
        return Reconnected()
    return Reconnected(pack(data, entries), tuple(closed), tuple(sorted(map(str, moved))))


def _is_connection(socket: Any) -> bool:
    return bool(socket.proto == _TCP and socket.dst_port)


def _source(socket: Any) -> _End:
    return _End(_plain(_read(socket.src_addr)), socket.src_port)


def _peer(socket: Any) -> _End:
    return _End(_plain(_read(socket.dst_addr)), socket.dst_port)


def _close(socket: Any) -> None:
    """As if it had never been connected: CRIU then neither binds nor connects it."""
    socket.state = _CLOSED
    socket.src_port = socket.dst_port = 0
    for words in (socket.src_addr, socket.dst_addr):
        words[:] = [0] * len(words)
    socket.ClearField("shutdown")
    socket.ClearField("ifname")


def _move(socket: Any, here: Collection[Address]) -> set[Address]:
    """Have the socket use the loopback address for those that are gone; returns them.

    Both ends of a connection inside the tree move alike, so they still find each other. A datagram socket whose peer is
    outside gets whatever address the kernel chooses.
    """
    moved = set()
    inside = socket.proto == _TCP or _is_here(_peer(socket).address, here)
    for words in (socket.src_addr, socket.dst_addr if socket.proto == _TCP else []):
        if not words or _is_here(address := _plain(_read(words)), here):
            continue
        moved.add(address)
        if inside:
            _write(words, _LOOPBACK[address.version])
        else:
            words[:] = [0] * len(words)
    return moved


def _is_here(address: Address, here: Collection[Address]) -> bool:
    return address in here or address.is_unspecified or address.is_loopback or address.is_multicast


def _read(words: Any) -> Address:
    raw = struct.pack(f"<{len(words)}I", *words)
    return IPv6Address(raw) if len(raw) == _IPV6_BYTES else IPv4Address(raw[:4])


def _write(words: Any, address: Address) -> None:
    raw = address.packed
    if isinstance(address, IPv4Address) and len(words) > 1:  # an IPv6 socket that talks IPv4
        raw = b"\0" * 10 + b"\xff\xff" + raw
    words[:] = struct.unpack(f"<{len(raw) // 4}I", raw)


def _plain(address: Address) -> Address:
    """A socket of either family may be the other end of one that talks IPv4."""
    return getattr(address, "ipv4_mapped", None) or address


def _shown(end: _End) -> str:
    return f"[{end.address}]:{end.port}" if end.address.version == 6 else f"{end.address}:{end.port}"
