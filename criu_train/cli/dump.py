"""``criu-train dump``: ask the running supervisor for a dump now."""

from __future__ import annotations

import click

from criu_train.cli.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_obj
def dump(settings: Settings, as_json: bool) -> None:
    """Take a snapshot of the running training now, wait until it is complete, and print its id.

    \b
    Examples:
      criu-train dump
      criu-train --store /data/job7 dump --json
    """
    import asyncio

    from criu_train.cli.bar import waiting
    from criu_train.cli.console import console, print_json
    from criu_train.supervisor.entry import request_dump

    with waiting("the snapshot is being taken", quiet=as_json):
        snapshot_id = asyncio.run(request_dump(settings.store))
    if as_json:
        print_json({"id": snapshot_id})
    else:
        console.print(snapshot_id)
