"""``criu-train report``: the story of a run as a page, or as numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from criu_train.cli.parameters import json_option, option
from criu_train.cli.settings import Settings
from criu_train.errors import CriuTrainError, UsageError
from criu_train.units import format_size

if TYPE_CHECKING:
    from criu_train.report.story import Story


@click.command()
@option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    help="Where the page goes.",
)
@option("--run", "run_id", metavar="ID", help="Of an earlier run in this store; a beginning of its id will do.")
@json_option
@click.pass_obj
def report(settings: Settings, output: Path, run_id: str | None, as_program: bool) -> None:
    """Tell the story of a run as one page that opens in any browser, without network.

    How far it got and when, what interrupted it and what that cost, how long snapshots made it pause, and what they
    took on the disk. Also of a run that goes on. With --json the numbers are printed, and no page is written.

    \b
    Examples:
      criu-train report
      criu-train report -o /srv/www/job7.html
      criu-train report --json
    """
    from criu_train.cli.console import console, print_json
    from criu_train.report.reading import read_story

    story = read_story(settings.store, key=settings.key, run_id=run_id)
    if as_program:
        print_json(_facts(story))
        return
    from criu_train.report.page import render

    page = render(story).encode(errors="replace")  # half a surrogate pair is no text
    try:
        _write(output, page, settings.umask)
    except OSError as error:
        raise CriuTrainError(
            f"{output} can't be written: {error.strerror}", tip="name another place with --output"
        ) from error
    console.print(f"{output}: {format_size(len(page))}; open it in a browser", soft_wrap=True, markup=False)


def _write(path: Path, page: bytes, umask: int) -> None:
    """Readers of a page that is made again and again find the old or the new one, whole."""
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent}", tip="make it first, or name another with --output")
    if path.exists() and not path.is_file():  # /dev/stdout
        path.write_bytes(page)
        return
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(page)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(path)


def _facts(story: Story) -> dict[str, Any]:
    from criu_train.report.totals import add_up

    return {
        "run": story.run,
        "command": list(story.command),
        "began_at": story.began_at,
        "state": story.state,
        "exit_code": story.exit_code,
        "numbers": asdict(add_up(story)),
        "interruptions": [asdict(one) | {"downtime_s": one.downtime_s} for one in story.interruptions],
        "snapshots": [asdict(one) | {"kept": one.id in story.kept} for one in story.snapshots],
        "dumps_failed": [asdict(one) for one in story.failed],
        "notes": list(story.notes),
    }
