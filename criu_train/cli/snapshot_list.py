"""``criu-train snapshot list``: what is there to go back to."""

from __future__ import annotations

import click

from criu_train.cli.parameters import json_option
from criu_train.cli.settings import Settings


@click.command("list")
@json_option
@click.pass_obj
def list_(settings: Settings, as_program: bool) -> None:
    """List all snapshots, the newest last.

    Looks at manifests, and whether the files of the newest twenty are there; `verify` reads every byte.

    \b
    Examples:
      criu-train snapshot list
      criu-train snapshot list --json
      criu-train --store /data/job7 snapshot list
    """
    from rich.text import Text

    from criu_train.cli.console import console, errors, line, print_json
    from criu_train.cli.snapshot_table import print_snapshots
    from criu_train.cli.snapshot_view import as_json
    from criu_train.store.store import Store

    store = Store.open_if_any(settings.store, key=settings.key)
    found = store.listing() if store else []
    if as_program:
        print_json([as_json(one) for one in found])
    elif found:
        print_snapshots(found, console)
    else:
        where = "has no snapshots yet" if store else "is no store yet; `criu-train run -- COMMAND` makes it one"
        line(errors, Text(f"{settings.store} {where}"))
