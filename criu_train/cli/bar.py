"""What shows on a terminal while something takes long; elsewhere nothing does."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TransferSpeedColumn

from criu_train.cli.console import can_redraw, errors

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
# What names, percentages and sizes leave of this is room for a bar.
_WIDE = 70


def bytes_bar(*, quiet: bool) -> Progress:
    """Counts bytes; gone once it is done. ``quiet``: shows nothing."""
    name = TextColumn("{task.description}")
    wide = errors.width >= _WIDE
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn()) if wide else (name, TaskProgressColumn())
    return Progress(*columns, console=errors, transient=True, disable=quiet or not can_redraw(errors))


def waiting(what: str, *, quiet: bool) -> AbstractContextManager[object]:
    """Something that turns, and what we wait for, while nobody knows how long. ``quiet``: shows nothing."""
    return errors.status(what) if can_redraw(errors) and not quiet else nullcontext()


class Phase:
    """What is going on now, with something that turns, in a line that is written over; nothing where that can't be.

    No thread draws it and no cursor is hidden: whoever is killed meanwhile leaves a terminal in order.
    """

    def __init__(self, where: Console) -> None:
        self._where = where
        self._text = ""
        self._since = 0.0

    def show(self, text: str) -> bool:
        """From now on this; False where it can't be."""
        if not can_redraw(self._where):
            return False
        if not self._text:
            self._since = time.monotonic()
        self._text = text
        return self.turn()

    def turn(self) -> bool:
        """Draw it as of now; False where there is none."""
        if not self._text:
            return False
        passed = time.monotonic() - self._since
        line = f"{_FRAMES[int(passed * 10) % len(_FRAMES)]} {self._text}" + (f", {passed:.0f} s" if passed >= 1 else "")
        self._write(line[: self._where.width - 1])
        return True

    def clear(self) -> None:
        """Nothing goes on any more."""
        if self._text:
            self._text = ""
            self._write("")

    def _write(self, line: str) -> None:
        self._where.file.write(f"\r\x1b[2K{line}")
        self._where.file.flush()
