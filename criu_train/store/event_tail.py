"""The end of ``events.jsonl``, followed as it grows: a log of months is never read as a whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# Of what is there already, and of what is new at one look.
_TAIL = 256 << 10


class EventTail:
    """``new`` tells what was not told before, at the first time the last 256 KiB."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._offset = 0
        self._rest = b""

    def new(self) -> list[dict[str, Any]]:
        """Whole events, oldest first; what is torn or foreign is passed over. A log that was replaced is begun anew."""
        try:
            with self._path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._rest = status.st_ino, 0, b""
                cut = status.st_size - self._offset > _TAIL
                if cut:
                    self._offset, self._rest = status.st_size - _TAIL, b""
                piece = os.pread(file.fileno(), _TAIL, self._offset)
        except OSError:
            return []
        self._offset += len(piece)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [event for line in lines[cut:] if (event := _event(line)) is not None]


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
