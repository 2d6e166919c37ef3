"""``criu-train snapshot``: what is in the store, and getting rid of it."""

from __future__ import annotations

import click

from criu_train.cli.groups import LazyGroup

_COMMANDS = {
    "delete": "criu_train.cli.snapshot_delete:delete",
    "diff": "criu_train.cli.snapshot_diff:diff",
    "export": "criu_train.cli.snapshot_export:export",
    "import": "criu_train.cli.snapshot_export:import_",
    "list": "criu_train.cli.snapshot_list:list_",
    "prune": "criu_train.cli.snapshot_delete:prune",
    "show": "criu_train.cli.snapshot_show:show",
    "verify": "criu_train.cli.snapshot_verify:verify",
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def snapshot() -> None:
    """List, show, compare, verify, delete, export and import snapshots.

    \b
    Examples:
      criu-train snapshot list
      criu-train snapshot show latest
      criu-train snapshot verify --all
    """
