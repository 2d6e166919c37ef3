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
from rich.table import Table
from rich.text import Text

from criu_train.errors import CriuTrainError

# File names need not be text; as they are, they can't be printed.
for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):
        _stream.reconfigure(errors="backslashreplace")

# In a file or a pipe nothing is gained by 80 columns, and paths are cut short by them.
_FILE_WIDTH = 240
_ROOM_TO_INDENT = 60
console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
errors = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _FILE_WIDTH)


def can_redraw(where: Console) -> bool:
    """Whether lines can be written over: a terminal that is more than a typewriter, whatever FORCE_COLOR says."""
    return where.file.isatty() and not where.is_dumb_terminal


def line(where: Console, text: Text, indent: int = 0) -> None:
    """One line; where a terminal is too narrow, broken between words: an id or a path stays in one piece.

    ``indent``: of what goes on below, where there is room for it.
    """
    if not where.file.isatty():
        where.print(text, soft_wrap=True)
        return
    first, *rest = text.wrap(where, where.width, overflow="ignore") or [text]
    where.print(first, soft_wrap=True)
    if rest:
        left = Text(" ").join(rest)
        indent = indent if where.width >= _ROOM_TO_INDENT else 0
        for one in left.wrap(where, where.width - indent, overflow="ignore"):
            where.print(Text.assemble(" " * indent, one), soft_wrap=True)


def facts_table() -> Table:
    """Two columns, a fact a line; what is too long goes on below itself."""
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def print_json(content: Any) -> None:
    """For machines: no colours, no wrapping."""
    print(json.dumps(content, indent=2))


def say(text: str, style: str = "") -> None:
    """One line of ours to stderr; the training's own output has stdout to itself."""
    line(errors, Text.assemble(("criu-train: ", "bold cyan"), (text, style)))


def tell_error(error: CriuTrainError) -> None:
    """What happened and what to do, a line each."""
    # Whoever called has gone (rich leaves by SystemExit then): the exit code is still ours to give.
    with contextlib.suppress(OSError, SystemExit):
        line(errors, Text.assemble(("error: ", "bold red"), str(error)))
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
