"""``criu-train status``: what the supervisor does now."""

from __future__ import annotations

import click

from criu_train.cli.console import console, print_json
from criu_train.cli.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_obj
def status(settings: Settings, as_json: bool) -> None:
    """Show what the supervisor of this store does now.

    \b
    Examples:
      criu-train status
      criu-train status --json
    """
    from rich.table import Table

    from criu_train.supervisor.entry import current_status

    now = current_status(settings.store)
    if as_json:
        print_json(now)
        return
    table = Table(show_header=False, box=None)
    for name, value in now.items():
        table.add_row(f"[bold]{name.replace('_', ' ')}[/]", "-" if value is None else str(value))
    console.print(table)
