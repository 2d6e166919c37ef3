"""The manual page, made from the help of all commands: ``python -m criu_train.cli.manual`` prints it, see scripts/man.

In the macros of man(7), as groff and mandoc read them.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from criu_train import __version__
from criu_train.cli.main import PROGRAM, cli

_WIDTH = 72  # of the source: escapes come on top, and checkers dislike lines of more than 80
_EXIT_STATUS = (
    ("0", "What was asked for is done. Of run, attach and restore: the training ended with 0."),
    ("1", "snapshot verify found damage, or snapshot diff --here what a restore would refuse."),
    ("2", "The call is wrong, or a configuration file."),
    ("125", "criu-train failed."),
    ("126, 127", "The training's command can't be executed, or was not found."),
    ("130, 143", "After Ctrl-C and SIGTERM; the run goes on from there at the next start."),
    ("other", "The training's own; 128+n after signal n."),
)
_FILES = (
    (".criu-train", "The store: snapshots, output.log, events.jsonl."),
    ("criu-train.toml", "Options as keys, in the working directory or above; a table for each command."),
    ("pyproject.toml", "The same in the table tool.criu-train; criu-train.toml comes first."),
)


def page(date: str) -> str:
    """All of it; ``date``: when it was changed last, ISO 8601."""
    lines = [
        f'.TH {PROGRAM.upper()} 1 "{date}" "{PROGRAM} {__version__}" "User commands"',
        ".SH NAME",
        f"{PROGRAM} \\- {_text('makes a long training run unbreakable without touching its code')}",
        ".SH SYNOPSIS",
        f".B {_text(PROGRAM)}",
        f"{_text('[OPTIONS] COMMAND [ARGS]...')}",
        ".SH DESCRIPTION",
        *_description(cli),
        ".SH OPTIONS",
        *_options(cli),
        ".SH COMMANDS",
    ]
    for name, ctx in _commands(cli, click.Context(cli, info_name=PROGRAM)):
        usage = " ".join(ctx.command.collect_usage_pieces(ctx))
        lines += [f".SS {_text(f'{name} {usage}')}", *_description(ctx.command), *_options(ctx.command)]
        if ctx.command.epilog:
            lines += [".PP", *_filled(ctx.command.epilog)]
    lines += [".SH EXIT STATUS", *_pairs(_EXIT_STATUS), ".SH FILES", *_pairs(_FILES), ".SH SEE ALSO", ".BR criu (8)"]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, parent: click.Context) -> Iterator[tuple[str, click.Context]]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        ctx = click.Context(command, info_name=name, parent=parent)
        path = ctx.command_path.removeprefix(f"{PROGRAM} ")
        if isinstance(command, click.Group):
            yield from _commands(command, ctx)
        else:
            yield path, ctx


def _description(command: click.Command) -> Iterator[str]:
    """Paragraphs are filled, what comes after ``\\b`` is left as it is."""
    for at, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))):
        first, _, rest = paragraph.partition("\n")
        if first.strip() != "\b":
            yield from ((".PP",) if at else ())
            yield from _filled(paragraph)
        else:
            title, *body = rest.splitlines()
            yield from (".PP", _text(title), ".RS 4", ".EX", *(_text(one.strip()) for one in body), ".EE", ".RE")


def _options(command: click.Command) -> Iterator[str]:
    ctx = click.Context(command)
    for option in command.params:
        if isinstance(option, click.Option) and (record := option.get_help_record(ctx)) is not None:
            yield from (".TP", f".B {_text(record[0])}", *_filled(record[1]))


def _pairs(pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, text in pairs:
        yield from (".TP", f".B {_text(name)}", *_filled(text))


def _filled(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
        yield _text(line)


def _text(text: str) -> str:
    """As roff reads it: no character of it is an order."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    escaped = escaped.replace("~", "\\(ti").replace("^", "\\(ha").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def main() -> None:
    """Print the page; dated as the file that is named, or the day that is given after it where that has changed."""
    file, today = Path(sys.argv[1]), sys.argv[2]
    before = file.read_text() if file.exists() else ""
    known = date_of(before)
    print(before if known and page(known) == before else page(today), end="")


def date_of(text: str) -> str | None:
    """That of a page."""
    match = re.search(r'^\.TH \S+ 1 "([\d-]+)"', text)
    return match[1] if match else None


if __name__ == "__main__":
    main()
