"""Init's end of the way to the supervisor, and the door for a later one when the first is gone.

Whoever comes through the door gets the store's lock, which init holds too, as a descriptor; then messages go as before.
While there is a supervisor, or while a CRIU that it started is still at work, those who knock are told to wait.
Standard library only: part of init.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from typing import Any

from criu_train.cell.wire import Wire

# What is said to those who knock, as the first record of the connection.
BUSY, WELCOME = b"busy", b"welcome"


class Channel:
    """One supervisor at a time, or none. ``on_message`` is called when there is something to ``receive``."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        wire: Wire,
        *,
        door: socket.socket,
        lock_fd: int,
        on_message: Callable[[], None],
        on_loss: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._wire: Wire | None = wire
        self._door = door
        self._lock_fd = lock_fd
        self._on_message = on_message
        self._on_loss = on_loss
        selector.register(wire, selectors.EVENT_READ, on_message)

    @property
    def connected(self) -> bool:
        """Whether there is a supervisor."""
        return self._wire is not None

    def tell(self, kind: str, **fields: Any) -> None:
        """To nobody when there is none, or when it goes away just now."""
        if self._wire is not None:
            try:
                self._wire.send(kind, **fields)
            except OSError:
                self.lose()

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the supervisor is gone."""
        message = self._wire.receive() if self._wire is not None else None
        if message is None:
            self.lose()
        return message

    def lose(self) -> None:
        """There is no supervisor any more."""
        if self._wire is None:
            return
        self._selector.unregister(self._wire)
        self._wire.close()
        self._wire = None
        self._on_loss()

    def open_door(self, on_knock: Callable[[], None]) -> None:
        """From now on ``on_knock`` is called when somebody knocks."""
        self._selector.register(self._door, selectors.EVENT_READ, on_knock)

    def admit(self, *, ready: bool) -> bool:
        """Let the one who knocks in, unless there is a supervisor or we are not ``ready``; whether it is in."""
        with contextlib.suppress(BlockingIOError):
            guest, _ = self._door.accept()
            guest.setblocking(True)
            try:
                if self._wire is not None or not ready:
                    guest.send(BUSY)
                    guest.close()
                    return False
                socket.send_fds(guest, [WELCOME], [self._lock_fd])
            except OSError:  # gone again
                guest.close()
                return False
            self._wire = Wire(guest)
            self._selector.register(self._wire, selectors.EVENT_READ, self._on_message)
            return True
        return False
