"""The frame of an image: two magic numbers, then messages, each behind its length."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

MAGICS = struct.Struct("<ii")  # the family of images, then the kind
_LENGTH = struct.Struct("<I")


def family(data: bytes) -> int:
    """The first magic number. Raises struct.error when there is none."""
    return int(MAGICS.unpack_from(data)[0])


def unpack(data: bytes, message: Any) -> Iterator[Any]:
    """The messages of one type in an image. Raises ValueError, struct.error, or protobuf's DecodeError."""
    at = MAGICS.size
    while at < len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + size > len(data):
            raise ValueError("it ends in the middle of an entry")
        yield message.FromString(data[at : at + size])
        at += size


def pack(like: bytes, messages: Iterable[Any]) -> bytes:
    """An image of the same kind as ``like``."""
    parts = [like[: MAGICS.size]]
    for message in messages:
        body = message.SerializeToString()
        parts += _LENGTH.pack(len(body)), body
    return b"".join(parts)
