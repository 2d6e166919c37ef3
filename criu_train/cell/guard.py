"""Init must not die of an exception: what goes wrong is written to its log and survived. Standard library only."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

# What failed once may fail again at once: neither a busy loop nor a log that fills the disk may come of it.
_PAUSE_S = 0.05
_COMPLAINTS_MAX = 100


class Guard:
    """Runs handlers. Each different failure is told once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def attempt(self, handler: Callable[..., object], *arguments: Any) -> Exception | None:
        """Run it. Returns what went wrong."""
        try:
            handler(*arguments)
        except Exception as error:
            self._complain(traceback.format_exc())
            time.sleep(_PAUSE_S)
            return error
        return None

    def _complain(self, text: str) -> None:
        if text not in self._told and len(self._told) < _COMPLAINTS_MAX:
            self._told.add(text)
            with contextlib.suppress(OSError, ValueError):  # stderr is a file on a disk that may be full
                sys.stderr.write(text)
                sys.stderr.flush()


def describe(error: Exception) -> str:
    """One line for people."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
