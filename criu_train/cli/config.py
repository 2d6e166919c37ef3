"""Options from a file: ``criu-train.toml``, or the table ``[tool.criu-train]`` of ``pyproject.toml``.

Looked for in the working directory, then in those above, up to one that has ``.git``; the first directory that has
either of them counts. Command line and environment come first, then criu-train.toml, then pyproject.toml. Keys are the
options that also read an environment variable; a table by the name of a command is for that command alone.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from criu_train.cli.groups import LazyGroup
from criu_train.cli.parameters import ORIGINS, ConfiguredOption
from criu_train.errors import UsageError
from criu_train.store.guard import distrust, owners

# Starting anew is for one call: set for all, an interruption would lose everything.
_NEVER = frozenset({"fresh"})
_MOST_BYTES = 1 << 20
_HELP = frozenset({"-h", "--help", "--version"})


@dataclass(frozen=True)
class Source:
    """A table that was found. ``prefix``: of its keys, as the file names them."""

    file: Path
    prefix: str
    table: Mapping[str, Any]


@dataclass
class _Settings:
    """What click is given; where each value is from, by the names of the commands and of the option."""

    defaults: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)


class ConfiguredGroup(LazyGroup):
    """The root command: reads the files before anything else. Raises UsageError for what they should not have."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """A word is completed, and help shown, in spite of a file that is wrong."""
        try:
            sources, passed_over = find(Path.cwd())
            if sources:
                settings = _read(sources, _commands_of(self, ctx))
                ctx.default_map, ctx.meta[ORIGINS] = settings.defaults, settings.origins
        except UsageError as error:
            asks_for_help = not _HELP.isdisjoint(args[: args.index("--")] if "--" in args else args)
            if not ctx.resilient_parsing and not asks_for_help:
                raise
            passed_over = [str(error)]
        if passed_over and not ctx.resilient_parsing:
            from criu_train.cli.console import say

            for what in passed_over:
                say(f"warning: {what}", "yellow")
        return super().parse_args(ctx, args)


def find(start: Path) -> tuple[list[Source], list[str]]:
    """The tables that count, the weaker first; and which files were passed over, and why. Raises UsageError."""
    passed_over: list[str] = []
    for directory in (start, *start.parents):
        found: list[Source] = []
        for name, tables in (("pyproject.toml", ("tool", "criu-train")), ("criu-train.toml", ())):
            file = directory / name
            content, why_not = _load(file)
            for key in tables:
                content = content.get(key) if isinstance(content, dict) else None
            if content is None:
                continue
            if why_not:
                passed_over.append(f"{file} is passed over: it {why_not} (tip: if you trust it, chown and chmod go-w)")
            elif not isinstance(content, dict):
                raise UsageError(f"{file}: {'.'.join(tables)} is not a table", tip="write [tool.criu-train]")
            else:
                found.append(Source(file, "".join(f"{key}." for key in tables), content))
        if found or (directory / ".git").exists():
            return found, passed_over
    return [], passed_over


def _load(file: Path) -> tuple[Any, str | None]:
    """What is in a file, None where there is none; and why it can't be trusted. Raises UsageError."""
    try:
        # Somebody else's pipe in a directory above must not hold us up.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}", tip="see to its rights") from error
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None, None
        why_not = _why_not(file, status)
        try:
            import tomllib

            return tomllib.loads(stream.read(_MOST_BYTES).decode()), why_not
        except (ValueError, RecursionError) as error:
            if why_not:
                return None, None
            raise UsageError(f"{file} is not TOML: {error}", tip="mend it, or take it away") from error


def _why_not(file: Path, status: os.stat_result) -> str | None:
    trusted = owners() | {0}
    if status.st_uid not in trusted:
        return f"belongs to user id {status.st_uid}"
    if (owner := file.lstat().st_uid) not in trusted:
        return f"is a symbolic link of user id {owner}"
    return distrust(status) if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def _commands_of(group: click.Group, ctx: click.Context, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by the names that lead to it, the root by none: options that can be in a file, by their keys."""
    found: dict[tuple[str, ...], Any] = {path: _configurable(group)}
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            found |= _commands_of(command, ctx, (*path, name))
        elif command is not None:
            found[*path, name] = _configurable(command)
    return found


def _configurable(command: click.Command) -> dict[str, click.Option]:
    return {
        str(one.name).replace("_", "-"): one
        for one in command.params
        if isinstance(one, ConfiguredOption) and one.name not in _NEVER
    }


def _read(sources: Sequence[Source], commands: Mapping[tuple[str, ...], Mapping[str, click.Option]]) -> _Settings:
    settings = _Settings()
    for source in sources:
        entries = list(_entries(source, source.table, commands))
        for path, key, value in sorted(entries, key=lambda entry: len(entry[0])):  # the more special come later
            meant = [one for one, options in commands.items() if one[: len(path)] == path and key in options]
            for command in meant:
                option = commands[command][key]
                where = f"{source.file}: {source.prefix}{'.'.join((*path, key))}"
                table = settings.defaults
                for name in command:
                    table = table.setdefault(name, {})
                table[str(option.name)] = _value(option, value, source.file.parent, where)
                settings.origins[*command, str(option.name)] = where
    return settings


def _entries(
    source: Source,
    table: Mapping[str, Any],
    commands: Mapping[tuple[str, ...], Mapping[str, click.Option]],
    path: tuple[str, ...] = (),
) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    below = [one for one in commands if one[: len(path)] == path]
    options = {key for one in below for key in commands[one]}
    tables = {one[len(path)] for one in below if len(one) > len(path)}
    for key, value in table.items():
        if key in tables and isinstance(value, dict):
            yield from _entries(source, value, commands, (*path, key))
        elif key in options and not isinstance(value, dict):
            yield path, key, value
        else:
            place = f"[{source.prefix}{'.'.join(path)}]".replace(".]", "]") if source.prefix or path else "the file"
            known = sorted(options | tables)
            similar = difflib.get_close_matches(key.replace("_", "-"), known, 1)
            raise UsageError(
                f"{source.file}: {place} has an unknown key {key!r}",
                tip=f"did you mean {similar[0]!r}?" if similar else f"known are {', '.join(known)}",
            )


def _value(option: click.Option, value: Any, directory: Path, where: str) -> Any:
    """As it would be on a command line, where numbers are text; paths as seen from the file."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{where} is neither true nor false", tip="write true or false, without quotes")
        return value
    if option.multiple:
        return [_text(option, one, directory, where) for one in (value if isinstance(value, list) else [value])]
    return _text(option, value, directory, where)


def _text(option: click.Option, value: Any, directory: Path, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        what = "texts, in brackets" if option.multiple else "text or a number"
        raise UsageError(f"{where} has to be {what}", tip=f"`--help` tells what --{option.name} takes")
    return str(directory / Path(str(value)).expanduser()) if isinstance(option.type, click.Path) else str(value)
