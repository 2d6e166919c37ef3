"""``criu-train attach``: watch again over a training that lost its supervisor."""

from __future__ import annotations

from typing import Any

import click

from criu_train.cli.run import options_of, supervision_options
from criu_train.cli.settings import Settings


@click.command()
@supervision_options
@click.pass_obj
def attach(settings: Settings, /, **chosen: Any) -> None:
    """Take over a training that goes on although its supervisor was killed.

    Nothing about it is restarted: output, timer, signals and snapshots go on. `criu-train run` with the same command
    does the same.

    \b
    Examples:
      criu-train attach
      criu-train --store runs/a attach --every 10m
    """
    from criu_train.cli.reporter import ConsoleReporter
    from criu_train.supervisor.entry import attach as take_over

    reporter = ConsoleReporter()
    try:
        code = take_over(settings.store, options_of(settings, chosen), reporter, settings.key)
    finally:
        reporter.close()
    raise click.exceptions.Exit(code)
