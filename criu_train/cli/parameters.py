"""Options as people write them: durations, sizes, and an environment variable for each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from criu_train.errors import UsageError
from criu_train.units import parse_duration, parse_share, parse_size

_F = TypeVar("_F", bound=Callable[..., Any])


class _Parsed(click.ParamType[Any]):
    def __init__(self, name: str, parse: Callable[[str], float | int]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | int:
        if isinstance(value, int | float):
            return value  # a default
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Every(_Parsed):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


class _Pattern(click.ParamType[Any]):
    name = "regex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> re.Pattern[str]:
        try:
            pattern = re.compile(value)
        except re.error as error:
            self.fail(f"no regular expression: {error}", param, ctx)
        if not pattern.groupindex:
            self.fail("it names no group, such as (?P<step>...) or (?P<loss>...)", param, ctx)
        return pattern


class _Endpoint(click.ParamType[Any]):
    name = "[host:]port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from criu_train.supervisor.options import Endpoint

        host, _, port = value.rpartition(":")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            self.fail(f"{value!r} ends in no port; write it like 9100, 0.0.0.0:9100 or [::1]:9100", param, ctx)
        return Endpoint(host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port))


class _Words(click.ParamType[Any]):
    name = "command"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        try:
            words = tuple(shlex.split(value))
        except ValueError as error:
            self.fail(f"it can't be taken apart into words: {error}", param, ctx)
        if not words:
            self.fail("it is empty", param, ctx)
        return words


ORIGINS = "criu_train.origins"  # in a context's meta: where the values of configuration files are from
ID_HELP = "ID: an id, a unique beginning of one, the number after its dash, latest, latest~1, @step:9 or @best:loss."
DURATION = _Parsed("duration", parse_duration)
EVERY = _Every("duration|auto", parse_duration)
SHARE = _Parsed("percent", parse_share)
SIZE = _Parsed("size", parse_size)
PATTERN = _Pattern()
ENDPOINT = _Endpoint()
WORDS = _Words()


class ConfiguredOption(click.Option):
    """An option that a file may set, see ``config``. Raises UsageError, naming file and key, for a value of no use."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        try:
            return super().handle_parse_result(ctx, opts, args)
        except click.BadParameter as error:
            names, at = [str(self.name)], ctx
            while at.parent is not None:
                names.insert(0, str(at.info_name))
                at = at.parent
            where = ctx.meta.get(ORIGINS, {}).get(tuple(names))
            if where is None or ctx.get_parameter_source(str(self.name)) is not ParameterSource.DEFAULT_MAP:
                raise
            raise UsageError(f"{where}: {error.message}", tip=f"`--help` tells what {self.opts[0]} takes") from error


def option(name: str, *others: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A click option (``others``: its other names) that also reads ``CRIU_TRAIN_<NAME>`` and configuration files, and
    shows its default."""
    variable = "CRIU_TRAIN_" + name.removeprefix("--").upper().replace("-", "_")
    shown = {"cls": ConfiguredOption, "envvar": variable, "show_default": True, "show_envvar": True}
    return click.option(name, *others, **{**shown, **attributes})


def json_option(command: _F) -> _F:
    """The option ``--json``, passed as ``as_program``."""
    return click.option("--json", "as_program", is_flag=True, help="Print JSON, for programs.")(command)
