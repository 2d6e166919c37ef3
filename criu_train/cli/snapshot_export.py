"""``criu-train snapshot export`` and ``import``: snapshots outside of a store."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from criu_train.cli import completing
from criu_train.cli.parameters import ID_HELP, json_option
from criu_train.cli.settings import DEFAULT_STORE, Settings

if TYPE_CHECKING:
    from criu_train.store.manifest import Manifest
    from criu_train.store.store import Store


@click.command(epilog=ID_HELP)
@click.argument("id_", metavar="ID", shell_complete=completing.snapshots)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--tar", "archive", is_flag=True, help="Also write DIR/criu-train/checkpoint.tar, for checkpointctl.")
@json_option
@click.pass_obj
def export(settings: Settings, id_: str, directory: Path, archive: bool, as_program: bool) -> None:
    """Write a snapshot's images as plain CRIU images into DIR, which is new or empty.

    `criu restore -D DIR` and `crit` read them. The saved files and all that `import` needs are in DIR/criu-train.

    \b
    Examples:
      criu-train snapshot export latest /data/for-a-colleague
      criu-train snapshot export 7 there --tar; checkpointctl inspect there/criu-train/checkpoint.tar
    """
    from criu_train.archive.exporting import export_snapshot
    from criu_train.cli.console import console, print_json
    from criu_train.store.store import Store

    store = Store.open(settings.store, key=settings.key)
    one = store.find(id_)
    with _bar(one.id, quiet=as_program) as progress:
        export_snapshot(one, directory.absolute(), store=store.id, archive=archive, progress=progress)
    if as_program:
        print_json({"id": one.id, "path": str(directory.absolute())})
    else:
        console.print(f"exported {one.id} to {directory}", markup=False, soft_wrap=True)


@click.command("import")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def import_(settings: Settings, directory: Path, as_program: bool) -> None:
    """Make a new snapshot of what `export` wrote into DIR.

    It belongs to the run that it was taken of. A store without a run takes that over, and `run` goes on from it. So
    it does where that is the store's unfinished run already; otherwise `restore ID` goes on from it, and the store
    keeps snapshots of its own run first.

    \b
    Examples:
      criu-train snapshot import /data/from-a-colleague
      criu-train --store /data/job7 snapshot import there --json
    """
    from criu_train.archive.importing import check_export, import_snapshot
    from criu_train.cli.bar import waiting
    from criu_train.cli.console import console, print_json
    from criu_train.store.store import Store

    store = Store.open_if_any(settings.store, key=settings.key)
    with _bar("checking", quiet=as_program) as progress:
        checked = check_export(directory.absolute(), progress)
    store = store or Store.create_or_open(settings.store, key=settings.key)
    with waiting("taking it in", quiet=as_program):
        one = import_snapshot(checked, store)
    if as_program:
        print_json({"id": one.id})
        return
    console.print(f"imported {one.id}", soft_wrap=True)
    console.print(_how_to_go_on(checked.manifest, store, one.id), markup=False, soft_wrap=True)


def _how_to_go_on(manifest: Manifest, store: Store, identifier: str) -> str:
    run = store.run
    restore = f"{_call(store, Path.cwd())} restore {identifier}"
    if run is None or run.id != manifest.run:
        return f"the store belongs to another run: go on with `{restore}`"
    if run.finished_at is not None:
        return f"that run came to its end: go back with `{restore}`"
    place = run.cwd if Path(run.cwd).is_dir() else f"{run.cwd}, which has to be made first"
    return f"go on with `{_call(store, Path(run.cwd))} run -- {shlex.join(run.command)}` in {place}"


def _call(store: Store, directory: Path) -> str:
    """How we are called in a directory for this very store."""
    root = store.layout.root
    return "criu-train" if root == directory / DEFAULT_STORE else f"criu-train --store {shlex.quote(str(root))}"


@contextmanager
def _bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told bytes done and bytes in all."""
    from criu_train.cli.bar import bytes_bar

    with bytes_bar(quiet=quiet) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
