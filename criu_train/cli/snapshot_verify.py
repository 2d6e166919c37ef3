"""``criu-train snapshot verify``: every byte read back; with --deep a restore on trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from criu_train.cli import completing
from criu_train.cli.parameters import ID_HELP, json_option
from criu_train.errors import UsageError

if TYPE_CHECKING:
    from criu_train.store.snapshot import Snapshot
    from criu_train.store.store import Store

_INTACT, _FIT, _UNFIT = (
    ", every byte as it was written",
    ", and it can be restored here",
    ", but a trial restore failed",
)
EXIT_DAMAGED = 1  # something was found


@click.command(epilog=ID_HELP)
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=completing.snapshots)
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
    from rich.text import Text

    from criu_train.cli.console import console, line, print_json
    from criu_train.cli.snapshot_view import status_word
    from criu_train.store.snapshot import is_live
    from criu_train.store.store import Store

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
        results = [(one, problems or _prove(store, one, quiet=as_program)) for one, problems in results]
    if as_program:
        print_json([{"id": one.id, "ok": not problems, "problems": problems} for one, problems in results])
    else:
        for one, problems in results:
            word = status_word("corrupt" if one.id in damaged and one.status == "complete" else one.status)
            sound = "" if one.id in damaged else _INTACT + ((_UNFIT if problems else _FIT) if deep else "")
            console.print(Text.assemble(one.id, "  ", word, sound))
            for problem in problems:
                line(console, Text(f"  {problem}"))
    if any(problems for _, problems in results):
        ctx.exit(EXIT_DAMAGED)


def _prove(store: Store, one: Snapshot, *, quiet: bool) -> list[str]:
    import asyncio

    from criu_train.cli.bar import waiting
    from criu_train.doctor import privileges
    from criu_train.supervisor.proving import prove

    privileges.require()
    with waiting(f"restoring {one.id} apart from everything else", quiet=quiet):
        return list(asyncio.run(prove(store, one)))


def _verify(chosen: Sequence[Snapshot], *, quiet: bool) -> list[tuple[Snapshot, list[str]]]:
    from criu_train.cli.bar import bytes_bar
    from criu_train.store.integrity import verify as verify_snapshot

    results = []
    with bytes_bar(quiet=quiet) as bar:
        for one in chosen:
            task = bar.add_task(one.id, total=None)
            problems = verify_snapshot(one, lambda done, total: bar.update(task, completed=done, total=total))  # noqa: B023
            results.append((one, problems))
            bar.remove_task(task)
    return results
