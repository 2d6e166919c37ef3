"""Listing and deleting nftables tables over netlink: neither the program nft nor its library need be there."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GET_TABLE = _SUBSYSTEM | 1
_DELETE_TABLE = _SUBSYSTEM | 2
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_ERROR, _DONE = 2, 3  # NLMSG_*
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300  # NLM_F_*
_INET = 1  # NFPROTO_INET
_ANY = 0  # NFPROTO_UNSPEC
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_FAMILY = struct.Struct("!BBH")  # family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_REPLY_LIMIT_S = 5.0


def inet_tables() -> tuple[str, ...]:
    """Names of the tables of family ``inet`` in this network namespace; none where the kernel has no nftables."""
    with _connect() as link:
        link.send(_message(_GET_TABLE, _REQUEST | _DUMP, _INET))
        try:
            return tuple(name for body in _replies(link) if (name := _name(body)))
        except OSError:
            return ()


def delete_inet_table(name: str) -> None:
    """Delete a table with all that is in it; OSError (ENOENT) when there is none of that name."""
    with _connect() as link:
        link.send(
            # A batch names its subsystem where other messages have a resource.
            _message(_BATCH_BEGIN, _REQUEST, _ANY, resource=_SUBSYSTEM >> 8)
            + _message(_DELETE_TABLE, _REQUEST | _ACK, _INET, _attribute(_TABLE_NAME, name.encode() + b"\0"))
            + _message(_BATCH_END, _REQUEST, _ANY, resource=_SUBSYSTEM >> 8)
        )
        for _ in _replies(link):
            pass


def _connect() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    link.settimeout(_REPLY_LIMIT_S)
    link.bind((0, 0))
    return link


def _replies(link: socket.socket) -> Iterator[bytes]:
    """Bodies of the messages up to the end of the answer; an error in it is raised as OSError."""
    while True:
        data = link.recv(1 << 16)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : length], data[_aligned(length) :]
            if kind in (_ERROR, _DONE):
                (code,) = struct.unpack_from("=i", body)
                if code:
                    raise OSError(-code, os.strerror(-code))
                return
            yield body


def _name(body: bytes) -> str:
    at = _FAMILY.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if kind == _TABLE_NAME:
            return body[at + _ATTRIBUTE.size : at + length].rstrip(b"\0").decode(errors="replace")
        at += _aligned(max(length, _ATTRIBUTE.size))
    return ""


def _message(kind: int, flags: int, family: int, attributes: bytes = b"", *, resource: int = 0) -> bytes:
    body = _FAMILY.pack(family, 0, resource) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
