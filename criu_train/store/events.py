"""``events.jsonl``: everything that happened, one JSON object a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from criu_train.store.durable import open_private
from criu_train.units import utc_now_iso


class EventLog:
    """Append-only; a line that a power cut tore is passed over and never spoils the next one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, kind: str, **fields: Any) -> bool:
        """Write ``{"at": now, "event": kind, **fields}``; False when the disk refuses: no event is worth a failure."""
        line = json.dumps({"at": utc_now_iso(), "event": kind, **fields}, default=str).encode() + b"\n"
        try:
            descriptor = open_private(self._path, os.O_RDWR | os.O_APPEND)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                line = b"\n" + line if torn else line
                return os.write(descriptor, line) == len(line)
            finally:
                os.close(descriptor)
        except OSError:
            return False

    def read(self) -> list[dict[str, Any]]:
        """All events that are whole, oldest first; empty when there is no log."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        events = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events
