"""What changed between two snapshots, or between one and this machine, as people and programs read it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from criu_train.cli.console import console, facts_table, print_json
from criu_train.cli.snapshot_view import NOTHING, count
from criu_train.errors import CriuTrainError
from criu_train.store.environment import CodeVersion
from criu_train.store.snapshot import Snapshot
from criu_train.units import format_duration, format_size

if TYPE_CHECKING:
    from criu_train.workspace.differences import Changed, Differences

_MOST = 10  # so many lines a group; the rest is counted
_ARROW = " → "
_SIGNS = {"added": "+", "removed": "-", "changed": "~", "grown": ">", "rewritten": "~"}
_STYLES = {"added": "green", "removed": "red", "changed": "yellow", "grown": "cyan", "rewritten": "yellow"}


def _size(value: Any) -> str:
    return NOTHING if value is None else format_size(value)


def _word(value: Any) -> str:
    return NOTHING if value is None else str(value)


# How a fact is called, and how its values are written.
_FACTS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "run": ("Run", _word),
    "command": ("Command", shlex.join),
    "cwd": ("Directory", _word),
    "trigger": ("Trigger", _word),
    "step": ("Step", count),
    "memory_bytes": ("Memory", _size),
    "tasks": ("Tasks", count),
    "python": ("Python", _word),
    "libc": ("C library", _word),
    "code": ("Code", _word),
    "criu_version": ("CRIU", _word),
    "kernel": ("Kernel", _word),
    "boot_id": ("Boot", _word),
    "cpu": ("Processor", _word),
    "gpu": ("GPU", _word),
}


def tell_findings(one: Snapshot, store: Path, *, as_program: bool) -> bool:
    """Whether something blocks."""
    from criu_train.criu.find import find_criu
    from criu_train.criu.images import Images
    from criu_train.workspace.differences import manifest_of
    from criu_train.workspace.environment import compare
    from criu_train.workspace.listing import listing_of
    from criu_train.workspace.place import compare_data, compare_place

    manifest, listing = manifest_of(one), listing_of(one)
    try:
        criu = find_criu()
    except CriuTrainError:
        criu = None
    findings = [
        *compare_place(manifest, listing, store=store, here=Path.cwd()),
        *compare(manifest, criu_version=criu.version if criu else None),
        *(compare_data(listing, Images(one.images, criu.pycriu, one.read_image)) if criu else ()),
    ]
    if as_program:
        told = [{"level": _level(one.blocking), "what": one.what, "tip": one.tip} for one in findings]
        print_json({"id": one.id, "findings": told})
    for finding in () if as_program else findings:
        style = "bold red" if finding.blocking else "yellow"
        console.print(Text.assemble((f"{_level(finding.blocking)}: ", style), finding.what))
        console.print(Text.assemble(("  tip: ", "bold"), finding.tip))
    if not findings and not as_program:
        console.print("nothing")
    return any(finding.blocking for finding in findings)


def _level(blocking: bool) -> str:
    return "blocking" if blocking else "warning"


def tell_differences(before: Snapshot, after: Snapshot, *, as_program: bool) -> None:
    from criu_train.criu.find import find_criu
    from criu_train.workspace.differences import differences

    try:
        pycriu = find_criu().pycriu
    except CriuTrainError:
        pycriu = None
    told = differences(before, after, pycriu)
    if as_program:
        print_json(as_json(told))
        return
    if before.id != after.id:
        when = f", {format_duration(abs(told.seconds))} {'later' if told.seconds >= 0 else 'earlier'}"
        console.print(Text.assemble((before.id, "bold"), _ARROW, (after.id, "bold"), when))
    for part in _parts(told):
        console.print(part)
    if not told:
        console.print("nothing" if before.id == after.id else "nothing else")


def as_json(told: Differences) -> dict[str, Any]:
    """What ``--json`` prints; docs/environment.md has the fields."""
    from criu_train.workspace.differences import GROUPS

    return {
        "before": told.before.id,
        "after": told.after.id,
        "seconds": told.seconds,
        "added_bytes": told.added_bytes,
        "facts": {name: [_plain(value) for value in pair] for name, pair in told.facts.items()},
        **{name: None if (group := getattr(told, name)) is None else asdict(group) for name in GROUPS},
    }


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, CodeVersion) else value


def _parts(told: Differences) -> Iterator[Table | Text]:
    facts = facts_table()
    for name, (label, write) in _FACTS.items():
        if pair := told.facts.get(name):
            facts.add_row(label, Text(_pair(pair, write)))
    if told.added_bytes is not None and told.before.id != told.after.id:
        facts.add_row("Added", f"{format_size(told.added_bytes)} on the disk")
    if facts.row_count:
        yield facts
    groups: list[tuple[str, Changed | Any | None, Callable[[Any], str]]] = [
        ("Metrics", told.metrics, lambda value: f"{value:.6g}"),
        ("Processes", told.tasks, _word),
        ("Open files", told.open_files, lambda _: ""),
        ("Programs and libraries", told.libraries, lambda _: ""),
        ("Packages", told.packages, _word),
        ("Data", told.data, lambda row: format_size(row[0])),
        ("Files", told.files, _size),
    ]
    for title, group, write in groups:
        if group is None:
            yield Text.assemble((title, "bold"), "  can't be read from both snapshots")
        elif group:
            yield Text(title, style="bold")
            yield from _lines(asdict(group), write, told.after.cwd)


def _lines(group: Mapping[str, Mapping[str, Any]], write: Callable[[Any], str], cwd: str) -> Iterator[Text]:
    """A line a thing; paths as seen from the training's working directory."""
    rest = 0
    for kind, things in group.items():
        for at, (name, value) in enumerate(things.items()):
            if at >= _MOST:
                rest += 1
                continue
            told = write(value) if kind in ("added", "removed") else _pair(value, write)
            line = f" {name.removeprefix(f'{cwd}/')}  {told}".rstrip()
            yield Text.assemble("  ", (_SIGNS[kind], _STYLES[kind]), line, overflow="fold")
    if rest:
        yield Text(f"  and {rest} more; --json tells all", style="dim")


def _pair(pair: tuple[Any, Any], write: Callable[[Any], str]) -> str:
    before, after = map(write, pair)
    if before != after:
        return f"{before}{_ARROW}{after}"
    if write is _size and pair[0] != pair[1]:
        return f"{before}, {pair[1] - pair[0]:+} B"
    return f"{before}, changed"
