"""Files that the tree writes all the time: told once, and not heard of again until the next cut.

A training that logs each step would wake init each step for what it knows already. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable

from criu_train.cell import fanotify

# Each holds a descriptor, and with it its filesystem: nobody could unmount that.
_MOST, _LONGEST_S = 64, 60.0


class Muted:
    """By path. A file that gets another name, or loses its name, is to be ``forget``ed."""

    def __init__(self, group: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._group = group
        self._clock = clock
        self._since = 0.0
        self._files: dict[str, int] = {}

    def add(self, path: str) -> None:
        """What is written to this file has been told; that it can't be muted does no harm."""
        if path in self._files or len(self._files) >= _MOST:
            return
        with contextlib.suppress(OSError):
            # Not for reading: somebody may wait for a reader of a FIFO.
            file = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                # With a second name it could be written to under that one, which nobody would hear of.
                info = os.fstat(file)
                if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
                    fanotify.mute(self._group, file)
                    self._since = self._since if self._files else self._clock()
                    self._files[path], file = file, -1
            finally:
                if file >= 0:
                    os.close(file)

    def forget(self, path: str) -> None:
        """Hear of this file again."""
        if (file := self._files.pop(path, None)) is not None:
            with contextlib.suppress(OSError):
                fanotify.unmute(self._group, file)
            os.close(file)

    def refresh(self) -> None:
        """Let go of all files now and then; those that are still written to are heard of once more."""
        if self._files and self._clock() > self._since + _LONGEST_S:
            self.forget_below(None)

    def forget_below(self, directory: str | None) -> None:
        """Hear again of all files in this directory and below it, or of all."""
        for path in list(self._files):
            if directory is None or path.startswith(directory + "/"):
                self.forget(path)

    def __len__(self) -> int:
        return len(self._files)
