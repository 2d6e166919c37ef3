"""All that is printed for people goes through here: results to stdout, what we have to say meanwhile to stderr."""

from __future__ import annotations

import contextlib
import io
import json
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.text import Text

from criu_train.errors import CriuTrainError

# File names need not be text; as they are, they can't be printed.
for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):
        _stream.reconfigure(errors="backslashreplace")

# In a file or a pipe nothing is gained by 80 columns, and paths are cut short by them.
_FILE_WIDTH = 240
console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
errors = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _FILE_WIDTH)


def print_json(content: Any) -> None:
    """For machines: no colours, no wrapping."""
    print(json.dumps(content, indent=2))


def say(text: str, style: str = "") -> None:
    """One line of ours to stderr; the training's own output has stdout to itself."""
    errors.print(Text.assemble(("criu-train: ", "bold cyan"), (text, style)), soft_wrap=True)


def tell_error(error: CriuTrainError) -> None:
    """What happened and what to do, a line each."""
    # Whoever called has gone (rich leaves by SystemExit then): the exit code is still ours to give.
    with contextlib.suppress(OSError, SystemExit):
        errors.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        errors.print(Text.assemble(("tip: ", "bold"), error.tip), soft_wrap=True)


class Teller:
    """Prints in a thread of its own: a terminal that is lost or held must not touch a supervised training."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="teller", daemon=True)
        self._thread.start()

    def tell(self, job: Callable[[], None]) -> None:
        """Print by calling ``job``, later. Never raises, never waits."""
        self._jobs.put(job)

    def close(self, timeout_s: float = 2.0) -> None:
        """Wait for what is still to be printed, but not for ever."""
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with contextlib.suppress(Exception, SystemExit):
                job()
