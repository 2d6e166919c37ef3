"""Connections that only the kernel still knows, since the processes that had them were killed.

The side that hung up first keeps its port for a minute (TIME_WAIT), and unless its socket had SO_REUSEADDR, nobody can
listen there meanwhile, nor can a connection between the same two ports be made again. A restore comes sooner than that.
The kernel is told to forget them (sock_diag(7), SOCK_DESTROY in the kernel's inet_diag.c).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from criu_train.criu.entries import unpack
from criu_train.criu.schema import image_schema

_SOCK_DIAG, _BY_FAMILY, _DESTROY = 4, 20, 21
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_DONE, _ERROR = 3, 2
_TCP = 6
# enum tcp_state in the kernel's tcp_states.h. Of the first two everything has been delivered; the others may have
# something to say yet, and are soon one of the first two, or gone.
_OVER = frozenset((5, 6))  # FIN_WAIT2, TIME_WAIT
_ENDING = frozenset((4, 9, 11))  # FIN_WAIT1, LAST_ACK, CLOSING
_HEADER = struct.Struct("=IHHII")
_PIECE = 1 << 16
_LIMIT_S = 2.0


class _Socket(NamedTuple):
    family: int
    state: int
    id: bytes  # addresses, ports and cookie, as the kernel writes them


def ports_of(data: bytes, pycriu: Path | None) -> frozenset[int]:
    """The TCP ports that the sockets in ``files.img`` are bound to. Raises whatever protobuf raises."""
    entries = unpack(data, image_schema(pycriu).pb.file_entry)
    sockets = (entry.isk for entry in entries if entry.HasField("isk"))
    return frozenset(one.src_port for one in sockets if one.proto == _TCP and one.src_port)


def forget(ports: Collection[int]) -> int:
    """Have the kernel forget connections of nobody's at these ports; how many there are left. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as link:
        link.settimeout(_LIMIT_S)
        found = [one for family in (socket.AF_INET, socket.AF_INET6) for one in _lingering(link, family, ports)]
        return sum(one.state in _ENDING or not _forgotten(link, one) for one in found)


def _lingering(link: socket.socket, family: int, ports: Collection[int]) -> Iterator[_Socket]:
    states = sum(1 << state for state in _OVER | _ENDING)
    link.send(_request(_BY_FAMILY, _REQUEST | _DUMP, family, states, bytes(48)))
    while True:
        answer = link.recv(_PIECE)
        at = 0
        while at < len(answer):
            size, kind, *_ = _HEADER.unpack_from(answer, at)
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError(errno.EOPNOTSUPP, "the kernel lists no connections")
            body = answer[at + _HEADER.size : at + size]
            (port,) = struct.unpack_from("!H", body, 4)
            (inode,) = struct.unpack_from("=I", body, 68)
            if port in ports and not inode:
                yield _Socket(body[0], body[1], body[4:52])
            at += size + 3 & ~3


def _forgotten(link: socket.socket, one: _Socket) -> bool:
    """False where this kernel, or our rights, do not allow it."""
    link.send(_request(_DESTROY, _REQUEST | _ACK, one.family, 1 << one.state, one.id))
    (code,) = struct.unpack_from("=i", link.recv(_PIECE), _HEADER.size)
    return -code in (0, errno.ENOENT)


def _request(kind: int, flags: int, family: int, states: int, identity: bytes) -> bytes:
    body = struct.pack("=BBBBI", family, _TCP, 0, 0, states) + identity
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, os.getpid(), 0) + body
