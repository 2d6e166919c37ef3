"""``criu-train snapshot show``: everything about one snapshot."""

from __future__ import annotations

import json

import click

from criu_train.cli import completing
from criu_train.cli.parameters import ID_HELP, json_option
from criu_train.cli.settings import Settings


@click.command(epilog=ID_HELP)
@click.argument("id_", metavar="ID", shell_complete=completing.snapshots)
@json_option
@click.pass_obj
def show(settings: Settings, id_: str, as_program: bool) -> None:
    """Show everything about one snapshot.

    \b
    Examples:
      criu-train snapshot show latest
      criu-train snapshot show 7
      criu-train snapshot show 20261121T204512Z-000007 --json
    """
    from criu_train.cli.console import console, print_json
    from criu_train.cli.snapshot_view import as_json, snapshot_facts
    from criu_train.store.store import Store

    one = Store.open(settings.store, key=settings.key).find(id_)
    if as_program:
        facts = as_json(one) | {"reason": one.reason, "path": str(one.path)}
        print_json(facts | {"manifest": json.loads(one.manifest.to_json()) if one.manifest else None})
    else:
        console.print(snapshot_facts(one))
        console.print(str(one.path), soft_wrap=True, markup=False)  # in one piece, however long
