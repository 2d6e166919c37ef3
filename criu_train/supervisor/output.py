"""Showing the training's output live: follows output.log, which the training itself appends to."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

from inotify_simple import INotify, flags

_CHUNK = 1 << 16


def our_terminal_size() -> os.terminal_size:
    """Of the terminal that we were started in, wherever it is still ours; the usual 80 by 24 without one."""
    for descriptor in (2, 1, 0):
        with contextlib.suppress(OSError):
            return os.get_terminal_size(descriptor)
    return os.terminal_size((80, 24))


class OutputFollower:
    """Copies what is appended to a file from now on to our stdout, in a thread of its own.

    A thread, since whoever reads our stdout may stop reading, and that must not hold up the supervisor.
    """

    def __init__(self, path: Path, start: int) -> None:
        self._inotify = INotify()
        self._inotify.add_watch(str(path), flags.MODIFY)
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._follow, name="output", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Show what is left, then end. Gives up on a reader that does not read."""
        os.write(self._stop_write, b"x")
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._inotify.close()
            self._file.close()
            os.close(self._stop_read)
            os.close(self._stop_write)

    def _follow(self) -> None:
        import select

        poll = select.poll()
        poll.register(self._inotify.fileno(), select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        with contextlib.suppress(OSError, ValueError):  # our stdout is gone: nobody to show it to
            while True:
                self._copy()
                ready = {fd for fd, _ in poll.poll()}
                if self._stop_read in ready:
                    self._copy()
                    return
                self._inotify.read(timeout=0)

    def _copy(self) -> None:
        while chunk := self._file.read(_CHUNK):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
