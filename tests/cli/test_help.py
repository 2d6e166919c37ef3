"""What ``--help`` tells, of every command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from criu_train.cli.main import cli


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = list(commands(cli))


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) or "-" for path, _ in ALL])
def test_every_command_has_examples_and_says_what_each_option_is_for(
    path: tuple[str, ...], command: click.Command
) -> None:
    told = CliRunner().invoke(cli, [*path, "--help"], terminal_width=100).stdout
    examples = told.partition("Examples:\n")[2].partition("\n\n")[0]
    assert "criu-train" in examples and " ".join(path) in examples
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"--{option.name} is not documented"
            assert option.opts[0] in told


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) or "-" for path, _ in ALL])
def test_every_example_is_a_call_that_exists(path: tuple[str, ...], command: click.Command) -> None:
    told = CliRunner().invoke(cli, [*path, "--help"], terminal_width=200).stdout
    for line in told.partition("Examples:\n")[2].partition("\n\n")[0].splitlines():
        if line.strip().startswith("criu-train"):
            words = shlex.split(line.strip().partition("   ")[0].partition(";")[0].partition(">")[0])[1:]
            assert not_an_error(words), line


def not_an_error(words: list[str]) -> bool:
    """Whether click knows all of it; nothing is run."""
    ctx = cli.make_context("criu-train", words, resilient_parsing=False)
    while isinstance(ctx.command, click.Group):
        rest = [*ctx._protected_args, *ctx.args]
        name, command, rest = ctx.command.resolve_command(ctx, rest)
        assert command is not None
        ctx = command.make_context(name, rest, parent=ctx)
    return True
