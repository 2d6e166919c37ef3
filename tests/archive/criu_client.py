"""CRIU's side of the streaming protocol, so that a test decides what is asked for, when, and how it breaks off."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Self

from criu_train.criu.stream import CAPTURE_SOCKET, SERVE_SOCKET


class _Client:
    def __init__(self, directory: Path, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(directory / name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, name: str) -> None:
        encoded = name.encode()
        body = b"\x0a" + bytes([len(encoded)]) + encoded
        self.socket.sendall(struct.pack("<I", len(body)) + body)

    def give(self, pipe: int) -> None:
        socket.send_fds(self.socket, [b"\0"], [pipe])
        os.close(pipe)


class Dumping(_Client):
    """``criu dump --stream``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, CAPTURE_SOCKET)

    def open(self, name: str) -> int:
        """The pipe to write an image into."""
        self.request(name)
        ours, theirs = os.pipe()
        self.give(ours)
        return theirs

    def image(self, name: str, data: bytes) -> None:
        with os.fdopen(self.open(name), "wb") as pipe:
            pipe.write(data)


class Restoring(_Client):
    """``criu restore --stream``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, SERVE_SOCKET)

    def open(self, name: str) -> int | None:
        """The pipe to read an image from, None where there is no such image."""
        self.request(name)
        length = struct.unpack("<I", self.socket.recv(4))[0]
        if self.socket.recv(length) == b"\x08\x00":
            return None
        ours, theirs = os.pipe()
        self.give(theirs)
        return ours

    def image(self, name: str) -> bytes | None:
        pipe = self.open(name)
        if pipe is None:
            return None
        with os.fdopen(pipe, "rb") as file:
            return file.read()
