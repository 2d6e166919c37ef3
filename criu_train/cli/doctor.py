"""``criu-train doctor``: whether a run would work on this machine, and what to do if not."""

from __future__ import annotations

import click
from rich.text import Text

from criu_train.cli.console import console, print_json
from criu_train.cli.settings import Settings
from criu_train.errors import EXIT_OURS

_SIGN = len("failed")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Tell whether a run would work on this machine, and what to do if not.

    Dumps and restores a small tree of processes for that. Exits with 0 only if a run would work.

    \b
    Examples:
      criu-train doctor
      criu-train doctor --json
    """
    from criu_train.doctor.checks import examine

    settings: Settings = ctx.obj
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
            console.print(Text.assemble(_sign(check.ok, check.needed), name, check.detail), soft_wrap=True)
            if check.tip:
                console.print(Text.assemble(" " * (_SIGN + len(name)), ("tip: ", "bold"), check.tip), soft_wrap=True)
        console.print("a run would work here" if report.ok else "[red]a run would not work here[/]")
    ctx.exit(0 if report.ok else EXIT_OURS)


def _sign(ok: bool, needed: bool) -> Text:
    if ok:
        return Text(f"{'ok':{_SIGN}}", style="green")
    return Text("failed", style="bold red") if needed else Text(f"{'no':{_SIGN}}", style="yellow")
