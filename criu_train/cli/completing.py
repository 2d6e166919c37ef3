"""What can come next on a command line: snapshots, steps and metrics of the store that the line is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from criu_train.cli.settings import DEFAULT_STORE, Settings
from criu_train.errors import CriuTrainError
from criu_train.units import ago

if TYPE_CHECKING:
    from criu_train.store.snapshot import Listed

_MOST = 50  # what is older is rarely meant, and no shell shows so many
_STEP, _BEST = "@step:", "@best:"

Items = list[CompletionItem[str]]


def snapshots(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Everything that an ID may be, the newest first."""
    taken = ctx.params.get(str(param.name)) or ()
    items = [one for one in _all(_listed(ctx), incomplete) if one.value.startswith(incomplete)]
    return [one for one in items if not (isinstance(taken, tuple) and one.value in taken)]


def steps(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """The steps that snapshots are of."""
    return [one for one in _steps(_listed(ctx)) if one.value.startswith(incomplete)]


def metrics(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """The metrics that snapshots know."""
    return [one for one in _metrics(_listed(ctx)) if one.value.startswith(incomplete)]


def command(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """A training's command line: the shell knows its files."""
    return [CompletionItem(incomplete, type="file")]


def _all(listed: Sequence[Listed], incomplete: str) -> Iterator[CompletionItem[str]]:
    if incomplete.startswith(_STEP[:2]):
        yield from (CompletionItem(_STEP + item.value, help=item.help) for item in _steps(listed))
        return
    if incomplete.startswith(_BEST[:2]):
        yield from (CompletionItem(_BEST + item.value, help=item.help) for item in _metrics(listed))
        return
    usable = [one for one in reversed(listed) if one.status == "complete" and not one.abandoned]
    for back, one in enumerate(usable):
        if back == 0 or incomplete.startswith("latest"):
            yield CompletionItem(f"latest~{back}" if back else "latest", help=f"{one.id}, {_help(one)}")
    for one in reversed(listed):
        yield CompletionItem(one.id, help=_help(one))
    if incomplete.isdecimal() and not any(one.id.startswith(incomplete) for one in listed):
        for one in reversed(listed):
            yield CompletionItem(str(one.sequence), help=_help(one))
    if any(_steps(listed)):
        yield CompletionItem(_STEP, help="the last one up to a step")
    if any(_metrics(listed)):
        yield CompletionItem(_BEST, help="the best one by a metric")


def _help(one: Listed) -> str:
    what: list[str] = [] if one.status == "complete" else [one.status]
    if one.abandoned:
        what.append("abandoned")
    if one.manifest is not None and one.manifest.step is not None:
        what.append(f"step {one.manifest.step}")
    return ", ".join([*what, ago(one.created_at)])


def _steps(listed: Sequence[Listed]) -> Items:
    told = {one.manifest.step: one for one in listed if one.manifest and one.manifest.step is not None}
    return [CompletionItem(str(step), help=f"{one.id}, {ago(one.created_at)}") for step, one in reversed(told.items())]


def _metrics(listed: Sequence[Listed]) -> Items:
    told = {name: value for one in listed if one.manifest for name, value in one.manifest.metrics.items()}
    return [CompletionItem(name, help=f"{value:.6g} in the newest") for name, value in sorted(told.items())]


def _listed(ctx: click.Context) -> Sequence[Listed]:
    """Those of the store that the line names; none where it can't be read."""
    from criu_train.store.store import Store

    root = ctx.find_root().params
    key = root.get("key_file")
    settings = Settings(
        Path(root.get("store") or DEFAULT_STORE).expanduser().absolute(), Path(key).expanduser() if key else None
    )
    try:
        store = Store.open_if_any(settings.store, key=settings.key)
        return store.listing(_MOST) if store else []
    except (CriuTrainError, OSError):
        return []
