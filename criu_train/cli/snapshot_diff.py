"""``criu-train snapshot diff``: what changed between two snapshots, or between one and this machine."""

from __future__ import annotations

import click

from criu_train.cli import completing
from criu_train.cli.parameters import ID_HELP, json_option
from criu_train.cli.settings import Settings
from criu_train.errors import UsageError

EXIT_UNFIT = 1  # with --here: a restore would be refused


@click.command(epilog=ID_HELP)
@click.argument("before", metavar="ID", shell_complete=completing.snapshots)
@click.argument("after", metavar="[ID]", required=False, shell_complete=completing.snapshots)
@click.option("--here", is_flag=True, help="Compare with this machine as it is now: what would a restore say?")
@json_option
@click.pass_context
def diff(ctx: click.Context, before: str, after: str | None, here: bool, as_program: bool) -> None:
    """Tell what changed from one snapshot to another.

    With --here, what a restore would say about this machine; exits with 1 when it would be refused.

    \b
    Examples:
      criu-train snapshot diff 6 7
      criu-train snapshot diff 6 latest --json
      criu-train snapshot diff latest --here
    """
    from criu_train.cli.snapshot_diff_view import tell_differences, tell_findings
    from criu_train.store.store import Store

    if here == (after is not None):
        raise UsageError("name two snapshots, or one and --here", tip="`criu-train snapshot diff latest --here`")
    settings: Settings = ctx.obj
    store = Store.open(settings.store, key=settings.key)
    one = store.find(before)
    if after is not None:
        tell_differences(one, store.find(after), as_program=as_program)
    elif tell_findings(one, store.layout.root, as_program=as_program):
        ctx.exit(EXIT_UNFIT)
