"""Taking the images of one dump away from CRIU while the tree stands still."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
from pathlib import Path

from criu_train.archive.arena import Arena
from criu_train.archive.captured import Captured, is_large
from criu_train.archive.pipes import StopSign
from criu_train.archive.readers import Readers
from criu_train.archive.space import Space
from criu_train.criu import stream

# What a pipe holds unless it was enlarged.
_SMALL_PIECE = 64 << 10


class Capture:
    """From the first request to the last byte; used once. CRIU connects to the socket in ``directory``.

    Raises OSError when it can't be begun. ``spill``: the file for what the arena can't hold, or None.
    """

    def __init__(self, directory: Path, arena: Arena, spill: Path | None) -> None:
        self._stop = StopSign()
        self._space = Space(arena, spill)
        self._small: dict[str, bytearray] = {}
        self._open: dict[int, bytearray] = {}
        self._failure: OSError | None = None
        self._captured: Captured | None = None
        self._finishing = -1
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        with contextlib.ExitStack() as undo:
            self._listener = stream.listen(directory, stream.CAPTURE_SOCKET)
            undo.callback(self._listener.close)
            self._finishing = os.eventfd(0, os.EFD_CLOEXEC)
            undo.callback(os.close, self._finishing)
            self._readers = Readers(self._space, self._stop)
            undo.callback(self._readers.finish)
            try:
                self._thread.start()
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, str(error)) from error
            undo.pop_all()

    def finish(self) -> Captured:
        """CRIU has asked for everything: wait until it is all here. Raises OSError when it can't be had."""
        os.eventfd_write(self._finishing, 1)
        self._thread.join()
        if self._captured is None:
            raise self._failure or OSError("the capture was given up")
        return self._captured

    def abort(self) -> None:
        """Close every pipe: CRIU fails by itself, and ``finish`` too. From any thread, at any time."""
        self._stop.set()

    def close(self) -> None:
        """Forget the capture."""
        self.abort()
        self._thread.join()
        self._space.close()
        if self._finishing >= 0:
            os.close(self._finishing)
            self._finishing = -1

    def _run(self) -> None:
        whole = False
        try:
            with selectors.DefaultSelector() as selector:
                whole = self._follow(selector)
        except Exception as error:
            self._failure = error if isinstance(error, OSError) else OSError(f"the capture failed: {error!r}")
            self._stop.set()
        finally:
            self._listener.close()
            for pipe in self._open:
                os.close(pipe)
            large = self._readers.finish()
        self._failure = self._readers.failure or self._failure
        if whole and self._failure is None and not self._stop.is_set:
            small = {name: bytes(data) for name, data in self._small.items()}
            self._captured = Captured(large, small, self._space, self._space.spilled)

    def _follow(self, selector: selectors.BaseSelector) -> bool:
        """Requests and small images as they come; whether they came to an end."""
        selector.register(self._stop, selectors.EVENT_READ)
        selector.register(self._finishing, selectors.EVENT_READ)
        selector.register(self._listener, selectors.EVENT_READ)
        connection: socket.socket | None = None
        finishing = False
        with contextlib.ExitStack() as closing:
            while True:
                ready = {key.fileobj for key, _ in selector.select(0 if finishing and not self._open else None)}
                if self._stop in ready:
                    return False
                if finishing and not ready and not self._open:
                    return True
                if self._finishing in ready:
                    finishing = True
                    selector.unregister(self._finishing)
                if self._listener in ready:
                    connection = closing.enter_context(self._listener.accept()[0])
                    selector.unregister(self._listener)
                    selector.register(connection, selectors.EVENT_READ)
                for pipe in self._open.keys() & ready:
                    self._drain(pipe, selector)
                if connection in ready and connection is not None and not self._take_request(connection, selector):
                    selector.unregister(connection)

    def _take_request(self, connection: socket.socket, selector: selectors.BaseSelector) -> bool:
        name = stream.receive_name(connection)
        pipe = None if name is None else stream.receive_pipe(connection)
        if name is None or pipe is None:
            return False
        if is_large(name):
            self._readers.add(name, pipe)
        else:
            self._open[pipe] = self._small[name] = bytearray()
            selector.register(pipe, selectors.EVENT_READ)
        return True

    def _drain(self, pipe: int, selector: selectors.BaseSelector) -> None:
        data = os.read(pipe, _SMALL_PIECE)
        self._open[pipe] += data
        if not data:
            selector.unregister(pipe)
            del self._open[pipe]
            os.close(pipe)
