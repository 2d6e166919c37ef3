"""All that is printed for people goes through here: results to stdout, what we have to say meanwhile to stderr."""

from __future__ import annotations

import contextlib
import io
import json
import queue
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

from rich.cells import cell_len
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
_TURN_S = 0.1
console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
errors = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _FILE_WIDTH)


def can_redraw(where: Console) -> bool:
    """Whether lines can be written over: a terminal that is more than a typewriter, whatever FORCE_COLOR says."""
    return where.file.isatty() and not where.is_dumb_terminal


def line(where: Console, text: Text) -> None:
    """One line; where a terminal is too narrow, broken between words: an id or a path stays in one piece."""
    breaks, used = [], 0
    for word in re.finditer(r"\s*\S+", text.plain) if where.file.isatty() else ():
        long = cell_len(word[0])
        if used and used + long > where.width:
            breaks.append(word.end() - len(word[0].lstrip()))
            used = cell_len(word[0].lstrip())
        else:
            used += long
    for piece in text.divide(breaks):
        piece.rstrip()
        where.print(piece, soft_wrap=True)


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
    """Prints in a thread of its own: a terminal that is lost or held must not touch a supervised training.

    ``idle``: called ten times a second while there is nothing to print, until it returns False.
    """

    def __init__(self, idle: Callable[[], bool] = lambda: False) -> None:
        self._idle = idle
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
        waits: float | None = None
        while True:
            try:
                job = self._jobs.get(timeout=waits)
            except queue.Empty:
                job = _nothing
            if job is None:
                return
            waits = None
            with contextlib.suppress(Exception, SystemExit):
                job()
                waits = _TURN_S if self._idle() else None


def _nothing() -> None:
    pass
