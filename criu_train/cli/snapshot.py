"""``criu-train snapshot``: what is in the store, and getting rid of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from rich.text import Text

from criu_train.cli.console import console, errors, print_json
from criu_train.cli.parameters import ID_HELP, json_option, option
from criu_train.cli.settings import Settings
from criu_train.cli.snapshot_diff import diff
from criu_train.cli.snapshot_export import export, import_
from criu_train.cli.snapshot_view import as_json, snapshot_facts, status_word
from criu_train.doctor import privileges
from criu_train.errors import UsageError
from criu_train.store.integrity import verify as verify_snapshot
from criu_train.store.snapshot import Snapshot, is_live
from criu_train.store.store import Store

_INTACT, _FIT, _UNFIT = (
    ", every byte as it was written",
    ", and it can be restored here",
    ", but a trial restore failed",
)
EXIT_DAMAGED = 1  # `verify` found something


@click.group()
def snapshot() -> None:
    """List, show, compare, verify, delete, export and import snapshots.

    \b
    Examples:
      criu-train snapshot list
      criu-train snapshot show latest
      criu-train snapshot verify --all
    """


for command in (diff, export, import_):
    snapshot.add_command(command)


@snapshot.command("list")
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
    store = Store.open_if_any(settings.store, key=settings.key)
    found = store.listing() if store else []
    if as_program:
        print_json([as_json(one) for one in found])
    elif found:
        from criu_train.cli.snapshot_table import print_snapshots

        print_snapshots(found, console)
    else:
        where = "has no snapshots yet" if store else "is no store yet; `criu-train run -- COMMAND` makes it one"
        errors.print(Text(f"{settings.store} {where}"), soft_wrap=True)


@snapshot.command(epilog=ID_HELP)
@click.argument("id_", metavar="ID")
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
    one = Store.open(settings.store, key=settings.key).find(id_)
    if as_program:
        facts = as_json(one) | {"reason": one.reason, "path": str(one.path)}
        print_json(facts | {"manifest": json.loads(one.manifest.to_json()) if one.manifest else None})
    else:
        console.print(snapshot_facts(one))


@snapshot.command(epilog=ID_HELP)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Verify every snapshot there is.")
@click.option("--deep", is_flag=True, help="Also restore it, apart from everything else and without running a line.")
@json_option
@click.pass_context
def verify(ctx: click.Context, ids: tuple[str, ...], every: bool, deep: bool, as_program: bool) -> None:
    """Read every byte back and compare checksums.

    Of the newest one that can be gone on from when none is named. Exits with 1 when something is wrong.

    With --deep CRIU then restores it into namespaces and a view of the files of its own, where its processes are left
    stopped, looked at, and ended; the training may go on meanwhile. That takes as much memory as the training has.

    \b
    Examples:
      criu-train snapshot verify
      criu-train snapshot verify 7
      criu-train snapshot verify --deep latest
      criu-train snapshot verify --all --json
    """
    if ids and every:
        raise UsageError("--all and ids don't go together", tip="name snapshots, or say --all")
    store = Store.open(ctx.obj.store, key=ctx.obj.key)
    if every:
        chosen = [one for one in store.snapshots() if not is_live(one.path)]
    else:
        chosen = [store.find(text) for text in ids or ("latest",)]
    results = _verify(chosen, quiet=as_program)
    damaged = {one.id for one, problems in results if problems}
    if deep:
        results = [(one, problems or _prove(store, one)) for one, problems in results]
    if as_program:
        print_json([{"id": one.id, "ok": not problems, "problems": problems} for one, problems in results])
    else:
        for one, problems in results:
            word = status_word("corrupt" if one.id in damaged and one.status == "complete" else one.status)
            sound = "" if one.id in damaged else _INTACT + ((_UNFIT if problems else _FIT) if deep else "")
            console.print(Text.assemble(one.id, "  ", word, sound))
            for problem in problems:
                console.print(Text(f"  {problem}"), soft_wrap=True)
    if any(problems for _, problems in results):
        ctx.exit(EXIT_DAMAGED)


def _prove(store: Store, one: Snapshot) -> list[str]:
    import asyncio

    from criu_train.supervisor.proving import prove

    privileges.require()
    with errors.status(f"restoring {one.id} apart from everything else"):
        return list(asyncio.run(prove(store, one)))


def _verify(chosen: Sequence[Snapshot], *, quiet: bool) -> list[tuple[Snapshot, list[str]]]:
    from criu_train.cli.bar import bytes_bar

    results = []
    with bytes_bar(quiet=quiet) as bar:
        for one in chosen:
            task = bar.add_task(one.id, total=None)
            problems = verify_snapshot(one, lambda done, total: bar.update(task, completed=done, total=total))  # noqa: B023
            results.append((one, problems))
            bar.remove_task(task)
    return results


@snapshot.command(epilog=ID_HELP)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
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
    store = Store.open(settings.store, key=settings.key)
    gone = sorted({store.find(text).id for text in ids})
    store.delete(gone, force=force)
    if as_program:
        print_json({"deleted": gone})
    else:
        _tell_gone("deleted", gone)


@snapshot.command()
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
    store = Store.open(settings.store, key=settings.key)
    gone = store.prune(keep)
    kept = [one.id for one in store.snapshots()]
    if as_program:
        print_json({"removed": gone, "kept": kept})
        return
    _tell_gone("removed", gone)
    console.print(f"{len(kept)} left" if kept else "nothing left")


def _tell_gone(verb: str, gone: Sequence[str]) -> None:
    for one in gone:
        console.print(f"{verb} {one}")
    if not gone:
        console.print(f"nothing {verb}")
