"""What shows on a terminal while something takes long; elsewhere nothing does."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TransferSpeedColumn

from criu_train.cli.console import can_redraw, errors

# What names, percentages and sizes leave of this is room for a bar.
_WIDE = 70


def bytes_bar(*, quiet: bool) -> Progress:
    """Counts bytes; gone once it is done. ``quiet``: shows nothing."""
    name = TextColumn("{task.description}")
    wide = errors.width >= _WIDE
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn()) if wide else (name, TaskProgressColumn())
    return Progress(*columns, console=errors, transient=True, disable=quiet or not can_redraw(errors))


def waiting(what: str) -> AbstractContextManager[object]:
    """Something that turns, and what we wait for, while nobody knows how long."""
    return errors.status(what) if can_redraw(errors) else nullcontext()
