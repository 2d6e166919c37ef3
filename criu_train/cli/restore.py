"""``criu-train restore``: go back to one snapshot and supervise from there."""

from __future__ import annotations

from typing import Any

import click

from criu_train.cli.run import options_of, supervision_options
from criu_train.cli.settings import Settings


@click.command()
@supervision_options
@click.option("--latest", is_flag=True, help="The newest complete snapshot of the store's run.")
@click.argument("snapshot", required=False, metavar="[ID]")
@click.pass_obj
def restore(settings: Settings, /, snapshot: str | None, latest: bool, **chosen: Any) -> None:
    """Restore a snapshot and supervise the training from there, in the foreground.

    Going back to an older snapshot starts a branch: the later ones stay listed, marked abandoned, and are not chosen
    by themselves any more.

    \b
    Examples:
      criu-train restore --latest
      criu-train restore 20261121T204512Z-000007
    """
    from criu_train.cli.reporter import ConsoleReporter
    from criu_train.supervisor.entry import restore_snapshot

    if latest == (snapshot is not None):
        raise click.UsageError("Name one snapshot, or --latest.")
    reporter = ConsoleReporter()
    try:
        options = options_of(settings, chosen)
        code = restore_snapshot(settings.store, snapshot or "latest", options, reporter, settings.key)
    finally:
        reporter.close()
    raise click.exceptions.Exit(code)
