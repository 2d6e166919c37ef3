"""How far a training is by now: its output, followed as it grows."""

from __future__ import annotations

import os
import re
from pathlib import Path

from criu_train.progress.line import NOTHING, Told
from criu_train.progress.reading import TAIL, Reader


class Following:
    """Each update reads what is new in ``output``, no more than its last 256 KiB.

    An output that has become shorter, or is another file, is begun anew: what it tells is all that counts then.
    """

    def __init__(self, output: Path, pattern: re.Pattern[str] | None = None) -> None:
        self._output = output
        self._pattern = pattern
        self._reader = Reader(pattern)
        self._inode: int | None = None
        self._offset = 0
        self.told = NOTHING

    def begin_anew(self) -> None:
        """Forget all: it may have been cut and have grown again since."""
        self._inode = None
        self.told = NOTHING

    def update(self) -> Told:
        """What all of it told so far. An output that can't be read tells nothing new."""
        try:
            with self._output.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._reader, self._inode, self._offset = Reader(self._pattern), status.st_ino, 0
                    self.told = NOTHING
                if status.st_size == self._offset:
                    return self.told
                left_out = status.st_size - self._offset > TAIL
                if left_out:
                    self._offset = status.st_size - TAIL
                piece = os.pread(file.fileno(), TAIL, self._offset)
        except OSError:
            return self.told
        self._offset += len(piece)
        self._reader.feed(piece, amid=left_out)
        self.told = self._reader.told
        return self.told
