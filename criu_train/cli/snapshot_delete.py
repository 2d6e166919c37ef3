"""``criu-train snapshot delete`` and ``prune``: getting rid of snapshots."""

from __future__ import annotations

from collections.abc import Sequence

import click

from criu_train.cli import completing
from criu_train.cli.parameters import ID_HELP, json_option, option
from criu_train.cli.settings import Settings


@click.command(epilog=ID_HELP)
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=completing.snapshots)
@click.option("--force", is_flag=True, help="Also the last one that an unfinished run could go on from.")
@json_option
@click.pass_obj
def delete(settings: Settings, ids: tuple[str, ...], force: bool, as_program: bool) -> None:
    """Delete snapshots; all of those named, or none.

    \b
    Examples:
      criu-train snapshot delete 3
      criu-train snapshot delete 3 4 5
      criu-train snapshot delete latest --force
    """
    from criu_train.cli.bar import waiting
    from criu_train.cli.console import print_json
    from criu_train.store.store import Store

    store = Store.open(settings.store, key=settings.key)
    gone = sorted({store.find(text).id for text in ids})
    with waiting("deleting", quiet=as_program):
        store.delete(gone, force=force)
    if as_program:
        print_json({"deleted": gone})
    else:
        _tell_gone("deleted", gone)


@click.command()
@option("--keep", type=click.IntRange(min=1), required=True, help="How many of the newest complete ones stay.")
@json_option
@click.pass_obj
def prune(settings: Settings, keep: int, as_program: bool) -> None:
    """Delete all but the newest snapshots.

    Those of the store's own run count first. The newest one that the training could go on from always stays. What
    interrupted dumps left goes too.
    Safe while a training runs.

    \b
    Examples:
      criu-train snapshot prune --keep 3
      criu-train snapshot prune --keep 1 --json
    """
    from criu_train.cli.bar import waiting
    from criu_train.cli.console import console, print_json
    from criu_train.store.store import Store

    store = Store.open(settings.store, key=settings.key)
    with waiting("deleting", quiet=as_program):
        gone = store.prune(keep)
    kept = [one.id for one in store.snapshots()]
    if as_program:
        print_json({"removed": gone, "kept": kept})
        return
    _tell_gone("removed", gone)
    console.print(f"{len(kept)} left" if kept else "nothing left")


def _tell_gone(verb: str, gone: Sequence[str]) -> None:
    from criu_train.cli.console import console

    for one in gone:
        console.print(f"{verb} {one}")
    if not gone:
        console.print(f"nothing {verb}")
