"""How CRIU asks for images to be taken away or handed out while it runs (``--stream``).

CRIU connects to a socket in its images directory and asks for one image after another: a little-endian uint32 length,
a protobuf message with the image's name, at a restore an answer whether there is such an image, and one byte that
carries the other end of a pipe. The image itself goes through the pipe; its end of file is the image's end. The few
images that CRIU keeps to itself (``stats-*``) lie in the directory as files.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

CAPTURE_SOCKET = "streamer-capture.sock"
SERVE_SOCKET = "streamer-serve.sock"
# CRIU cuts off longer paths silently; one byte of the kernel's 108 ends the string.
PATH_LIMIT = 107
_LENGTH = struct.Struct("<I")
_NAME_LIMIT = 4096
_FIELD_1_STRING, _FIELD_1_NUMBER = 0x0A, 0x08


class StreamError(OSError):
    """The other end does not speak as CRIU does."""


def listen(directory: Path, name: str) -> socket.socket:
    """A socket that CRIU connects to. Raises OSError, also where the path is too long for CRIU."""
    path = str(directory / name)
    if len(path.encode()) > PATH_LIMIT:
        raise StreamError(f"too long for a socket's path: {path}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def receive_name(connection: socket.socket) -> str | None:
    """The image that CRIU asks for next, None when it has gone. Raises StreamError."""
    head = _receive(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > _NAME_LIMIT:
        raise StreamError(f"a request of {length} bytes")
    body = _receive(connection, length)
    return None if body is None else _parse(body)


def receive_pipe(connection: socket.socket) -> int | None:
    """Our end of the pipe for the image just asked for, None when CRIU has gone. Raises StreamError."""
    data, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not data:
        return None
    if not descriptors:
        raise StreamError("a request without a pipe")
    return descriptors[0]


def send_answer(connection: socket.socket, exists: bool) -> None:
    """Whether there is such an image; where there is, a pipe follows. Raises OSError."""
    body = bytes((_FIELD_1_NUMBER, exists))
    connection.sendall(_LENGTH.pack(len(body)) + body)


def _receive(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            more = connection.recv(size - len(data))
        except ConnectionResetError:
            return None
        if not more:
            return None
        data += more
    return data


def _parse(body: bytes) -> str:
    """The one field of a request: a string with its length as a varint."""
    at, length, shift = 1, 0, 0
    while at < len(body):
        length |= (body[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not body[at - 1] & 0x80:
            break
    name = body[at:].decode(errors="replace")
    if body[:1] != bytes((_FIELD_1_STRING,)) or len(body) - at != length or not name or "/" in name or name[0] == ".":
        raise StreamError(f"not a request for an image: {body[:64]!r}")
    return name
