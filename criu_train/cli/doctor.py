"""``criu-train doctor``: whether a run would work on this machine, or of this training, and what to do if not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from criu_train.cli import completing
from criu_train.cli.parameters import DURATION
from criu_train.cli.settings import Settings
from criu_train.errors import EXIT_OURS, UsageError
from criu_train.units import format_size

if TYPE_CHECKING:
    from rich.text import Text

    from criu_train.doctor.preflight import Preflight

_SIGN = len("failed")
_STYLES = {"blocks": "bold red", "warns": "yellow", "fine": "green"}


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--pid", type=click.IntRange(min=1), help="Look at this running process and all below it instead.")
@click.option("--for", "seconds", type=DURATION, default="10s", show_default=True, help="How long COMMAND may run.")
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]", shell_complete=completing.command)
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, pid: int | None, seconds: float, command: tuple[str, ...]) -> None:
    """Tell whether a run would work on this machine, and what to do if not.

    Dumps and restores a small tree of processes for that. Exits with 0 only if a run would work.

    With --pid, or with a COMMAND, tells instead what of that training a snapshot would carry and what not. Nothing is
    frozen or changed in a process that is looked at. A COMMAND really runs, for as long as --for says, in the current
    directory: what it writes there stays. It is killed afterwards. Exits with 0 only if snapshots of it would work.

    \b
    Examples:
      criu-train doctor
      criu-train doctor --pid 4242
      criu-train doctor --for 1m -- python train.py
    """
    if command and pid is not None:
        raise UsageError("--pid and a command at once", tip="give one of the two")
    if command:
        from criu_train.doctor.preflight_command import preflight_of_command

        settings: Settings = ctx.obj
        _tell(ctx, preflight_of_command(command, seconds, settings.umask), as_json)
    elif pid is not None:
        from criu_train.doctor.preflight import preflight_of_process

        _tell(ctx, preflight_of_process(pid), as_json)
    else:
        _tell_of_the_machine(ctx, as_json)


def _tell_of_the_machine(ctx: click.Context, as_json: bool) -> None:
    from rich.text import Text

    from criu_train.cli.bar import waiting
    from criu_train.cli.console import console, line, print_json
    from criu_train.doctor.checks import examine

    settings: Settings = ctx.obj
    with waiting("dumping and restoring a small tree", quiet=as_json):
        report = examine(settings.store)
    if as_json:
        criu = report.criu
        print_json(
            {
                "ok": report.ok,
                "checks": [
                    {"name": c.name, "ok": c.ok, "detail": c.detail, "tip": c.tip, "needed": c.needed}
                    for c in report.checks
                ],
                "criu": {"command": list(criu.command), "version": criu.version} if criu else None,
            }
        )
    else:
        width = max(len(check.name) for check in report.checks)
        for check in report.checks:
            name = f"  {check.name:{width}}  "
            line(console, Text.assemble(_sign(check.ok, check.needed), name, check.detail))
            if check.tip:
                line(console, Text.assemble(" " * (_SIGN + len(name)), ("tip: ", "bold"), check.tip))
        console.print("a run would work here" if report.ok else "[red]a run would not work here[/]")
    ctx.exit(0 if report.ok else EXIT_OURS)


def _tell(ctx: click.Context, found: Preflight, as_json: bool) -> None:
    from rich.text import Text

    from criu_train.cli.console import console, line, print_json

    if as_json:
        findings = [{"level": f.level, "what": f.what, "why": f.why, "tip": f.tip} for f in found.findings]
        print_json(
            {"ok": found.ok, "findings": findings, "tasks": found.tasks, "memory_bytes": found.memory_bytes},
        )
    else:
        for one in found.findings:
            sign = Text(f"{one.level:{_SIGN}}", style=_STYLES[one.level])
            line(console, Text.assemble(sign, "  ", one.what))
            if one.level != "fine":
                for name, text in (("why: ", one.why), ("tip: ", one.tip)):
                    line(console, Text.assemble(" " * (_SIGN + 2), (name, "bold"), text))
        processes = "1 process" if found.tasks == 1 else f"{found.tasks} processes"
        looked_at = f"{processes}, {format_size(found.memory_bytes)} of memory"
        verdict = "[green]snapshots would work[/]" if found.ok else "[red]snapshots would not work as it is[/]"
        console.print(f"{looked_at}: {verdict}")
    ctx.exit(0 if found.ok else EXIT_OURS)


def _sign(ok: bool, needed: bool) -> Text:
    from rich.text import Text

    if ok:
        return Text(f"{'ok':{_SIGN}}", style="green")
    return Text("failed", style="bold red") if needed else Text(f"{'no':{_SIGN}}", style="yellow")
