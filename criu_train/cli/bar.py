"""A bar for what takes a while, on terminals only."""

from __future__ import annotations

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from criu_train.cli.console import errors


def bytes_bar(*, quiet: bool) -> Progress:
    """Counts bytes; gone once it is done. ``quiet``: shows nothing."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=errors, transient=True, disable=quiet or not errors.is_terminal,
    )  # fmt: skip
