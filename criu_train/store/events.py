"""``events.jsonl``: everything that happened, one JSON object a line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from criu_train.store.durable import open_private
from criu_train.units import utc_now_iso_ms

Event = Mapping[str, Any]


class EventLog:
    """Append-only; a line that a power cut tore is passed over and never spoils the next one.

    ``run``: the one that events are of from now on, None before there is one. ``listeners`` hear of each event once it
    is written, or can't be; none of them may wait, and none can do harm.
    """

    def __init__(self, path: Path, run: str | None = None) -> None:
        self._path = path
        self.run = run
        self.listeners: list[Callable[[Event], None]] = []

    def append(self, kind: str, **fields: Any) -> bool:
        """Write ``{"at": now, "event": kind, "run": run, **fields}``, with the fields of ``event_schema``.

        False when the disk refuses: no event is worth a failure.
        """
        event = {"at": utc_now_iso_ms(), "event": kind, "run": self.run, **fields}
        written = self._write(json.dumps(event, default=str).encode() + b"\n")
        for listener in self.listeners:
            with contextlib.suppress(Exception):
                listener(event)
        return written

    def _write(self, line: bytes) -> bool:
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
        """All events that are whole, oldest first; empty when there is no log, or it can't be read."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return []
        events = []
        for line in lines:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                events.append(event)
        return events


def time_of(event: Event) -> float | None:
    """When it happened, in seconds since 1970; of events of older versions to the second, None where it isn't told."""
    try:
        return datetime.fromisoformat(event["at"]).timestamp()
    except (LookupError, TypeError, ValueError):
        return None
