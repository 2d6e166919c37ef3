"""``criu-train restore``: go back to one snapshot and supervise from there."""

from __future__ import annotations

from typing import Any

import click

from criu_train.cli import completing
from criu_train.cli.run import options_of, supervision_options
from criu_train.cli.settings import Settings


@click.command()
@supervision_options
@click.option("--latest", is_flag=True, help="The newest complete snapshot of the store's run.")
@click.option(
    "--at-step",
    type=click.IntRange(min=0),
    default=None,
    help="The last one up to that step.",
    shell_complete=completing.steps,
)
@click.option(
    "--best",
    default=None,
    metavar="METRIC",
    help="The lowest loss, the highest accuracy.",
    shell_complete=completing.metrics,
)
@click.argument("snapshot", required=False, metavar="[ID]", shell_complete=completing.snapshots)
@click.pass_obj
def restore(
    settings: Settings,
    /,
    snapshot: str | None,
    latest: bool,
    at_step: int | None,
    best: str | None,
    **chosen: Any,
) -> None:
    """Restore a snapshot and supervise the training from there, in the foreground.

    Going back to an older snapshot starts a branch: the later ones stay listed, marked abandoned, and are not chosen
    by themselves any more.

    \b
    Examples:
      criu-train restore --latest
      criu-train restore 20261121T204512Z-000007
      criu-train restore latest~1
      criu-train restore --at-step 1200
      criu-train restore --best loss
    """
    from criu_train.cli.reporter import ConsoleReporter
    from criu_train.supervisor.entry import restore_snapshot

    wanted = [
        *([snapshot] if snapshot is not None else []),
        *(["latest"] if latest else []),
        *([f"@step:{at_step}"] if at_step is not None else []),
        *([f"@best:{best}"] if best is not None else []),
    ]
    if len(wanted) != 1:
        raise click.UsageError("Name one snapshot: by its ID, --latest, --at-step or --best.")
    reporter = ConsoleReporter()
    try:
        options = options_of(settings, chosen)
        code = restore_snapshot(settings.store, wanted[0], options, reporter, settings.key)
    finally:
        reporter.close()
    raise click.exceptions.Exit(code)
