"""The control channel between supervisor and init: one JSON object a message over a SOCK_SEQPACKET pair.

Record boundaries are kept by the kernel, so there is no framing of our own. Standard library only: init uses it too.
"""

from __future__ import annotations

import errno
import json
import socket
import time
from typing import Any

# The default socket buffer (net.core.wmem_default, 208 KiB) bounds one record; a long command line needs more.
_BUFFER_BYTES = 4 << 20
# Losing a message, or taking the other end for lost, would be worse than a short wait.
_SHORT_OF_MEMORY_S = (0.01, 0.05, 0.2)


class Wire:
    """One end of the channel."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)

    @classmethod
    def pair(cls) -> tuple[Wire, socket.socket]:
        """Our end, and the socket to hand to the other process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message. Raises OSError when the other end is gone, or when memory stays short."""
        data = json.dumps({"kind": kind, **fields}).encode()
        for pause_s in _SHORT_OF_MEMORY_S:
            try:
                self._sock.send(data)
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.ENOMEM):
                    raise
                time.sleep(pause_s)
            else:
                return
        self._sock.send(data)

    def receive(self) -> dict[str, Any] | None:
        """The next message, or None when the other end is gone. Raises BlockingIOError when nothing is waiting."""
        try:
            data = self._sock.recv(_BUFFER_BYTES)
        except ConnectionResetError:
            return None
        if not data:
            return None
        message: dict[str, Any] = json.loads(data)
        return message

    def close(self) -> None:
        self._sock.close()
