"""``criu-train status``: what the supervisor does now."""

from __future__ import annotations

import re

import click

from criu_train.cli.parameters import PATTERN, option
from criu_train.cli.settings import Settings
from criu_train.errors import UsageError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("-w", "--watch", is_flag=True, help="Look every second until the run is over; Ctrl-C ends it.")
@option(
    "--progress-regex",
    type=PATTERN,
    default=None,
    help="With --watch: how to find step, epoch and metrics in the output, as `run` was told.",
)
@click.pass_obj
def status(settings: Settings, as_json: bool, watch: bool, progress_regex: re.Pattern[str] | None) -> None:
    """Show what the supervisor of this store does now.

    With --watch also how far the training is and how fast, the next dump, the last snapshots and the last events. It
    only reads what lies in the store, so it may be started and ended at any time.

    \b
    Examples:
      criu-train status
      criu-train status --watch
      criu-train status --json
    """
    from criu_train.cli.console import console, facts_table, print_json
    from criu_train.supervisor.entry import current_status

    if watch and as_json:
        raise UsageError("--watch is for people, --json for programs", tip="programs read events.jsonl in the store")
    now = current_status(settings.store)
    if watch:
        from criu_train.cli.live import watch as go_on_watching
        from criu_train.store.store import Store

        go_on_watching(Store.open(settings.store, key=settings.key), console, progress_regex)
    elif as_json:
        print_json(now)
    else:
        table = facts_table()
        for name, value in now.items():
            table.add_row(name.replace("_", " "), "-" if value is None else str(value))
        console.print(table)
