"""TCP connections in the images: those inside the tree come back established, those to the outside come back closed.

After a kill the peer outside has been reset, or has gone on without us. Established again, such a socket would wait for
an answer that never comes; closed, its next use fails (reading with ENOTCONN, writing with EPIPE), and the program
connects anew as after any other loss. CRIU has one switch for all connections of a tree, so the choice is made in
``files.img``: a socket without a peer is restored as one that was never connected (``tcp_connection()`` in CRIU's
sk-inet.c), for which poll() says hang-up. Not the end of the file: half an answer would be taken for a whole one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
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
# The peer has said all it had to say: what waits to be read comes back, and after it the end. Nobody needs to be there.
_HEARD_ALL = frozenset((7, 8, 9, 11))  # TCP_CLOSE (of a socket that still has a peer), _CLOSE_WAIT, _LAST_ACK, _CLOSING
_LOOPBACK: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
_IPV6_BYTES = 16


class _End(NamedTuple):
    address: Address
    port: int


@dataclass(frozen=True)
class Reconnected:
    """``image``: files.img as CRIU is to read it, None where the one in the snapshot will do.

    ``closed``: peers outside, as ``address:port``, whose connections come back closed. ``moved``: addresses that are
    gone, or to which no route leads any more; sockets inside the tree use the loopback address instead, others any.
    """

    image: bytes | None = None
    closed: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()


def reconnect(
    data: bytes,
    pycriu: Path | None,
    *,
    policy: TcpPolicy,
    local: Collection[str],
    reachable: Callable[[Address], bool],
) -> Reconnected:
    """Decide for every socket in ``files.img``; ``local``: the addresses that this machine has.

    ``reachable``: whether there is a route to an address; CRIU can't even restore a connection without.
    Raises whatever protobuf raises when ``data`` is no such image.
    """
    schema = image_schema(pycriu)
    entries = list(unpack(data, schema.pb.file_entry))
    sockets = [entry.isk for entry in entries if entry.HasField("isk")]
    here = frozenset(_plain(ip_address(name.partition("%")[0])) for name in local)
    ends = {(one.proto, _source(one), _peer(one)) for one in sockets if one.dst_port}
    closed: list[str] = []
    moved: set[Address] = set()
    for one in sockets:
        inside = (one.proto, _peer(one), _source(one)) in ends
        gone = not _is_here(_source(one).address, here)
        lost = bool(one.dst_port) and not inside and not reachable(_peer(one).address)
        if one.proto != _TCP and not inside:
            moved |= _let_go(one, source=gone, peer=lost)
        elif inside or not one.dst_port:
            moved |= _move(one, here)
        elif one.state in _HEARD_ALL:
            moved |= _move(one, ()) if gone or lost else set()
        elif gone or lost or policy == "close-external":
            closed.append(_shown(_peer(one)))
            _close(one)
    if not closed and not moved:
        return Reconnected()
    return Reconnected(pack(data, entries), tuple(closed), tuple(sorted(map(str, moved))))


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
    _untie(socket)
    socket.ClearField("shutdown")


def _move(socket: Any, here: Collection[Address]) -> set[Address]:
    """Have the socket use the loopback address for those that are not ``here``; returns them.

    Both ends of a connection inside the tree move alike, so they still find each other.
    """
    moved = set()
    for words in (socket.src_addr, socket.dst_addr):
        if words and not _is_here(address := _plain(_read(words)), here):
            moved.add(address)
            _write(words, _LOOPBACK[address.version])
            _untie(socket)
    return moved


def _let_go(socket: Any, *, source: bool, peer: bool) -> set[Address]:
    """A datagram socket that talks to the outside: its own address if that is gone, its peer if no route leads there.

    Then the kernel chooses an address, and what is sent to no peer fails. Returns the addresses let go of.
    """
    dropped = set()
    if source:
        dropped.add(_source(socket).address)
        socket.src_addr[:] = [0] * len(socket.src_addr)
        _untie(socket)
    if peer:
        dropped.add(_peer(socket).address)
        socket.dst_addr[:] = [0] * len(socket.dst_addr)
        socket.dst_port = 0
    return dropped


def _untie(socket: Any) -> None:
    """From the interface that the address was on."""
    socket.ClearField("ifname")
    socket.opts.ClearField("so_bound_dev")


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
