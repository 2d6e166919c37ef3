"""Snapshots as people and programs read them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from criu_train.store.manifest import Manifest
from criu_train.store.snapshot import Snapshot, Status
from criu_train.units import ago, format_duration, format_size

_STATUS = {"complete": ("Completed", "green"), "incomplete": ("Incomplete", "yellow"), "corrupt": ("Corrupt", "red")}
_NOTHING = "–"  # noqa: RUF001


def as_json(one: Snapshot) -> dict[str, Any]:
    """What ``snapshot list --json`` says about a snapshot; facts that only a manifest tells are null without one."""
    manifest = one.manifest

    def fact(name: str) -> Any:
        return getattr(manifest, name) if manifest else None

    return {
        "id": one.id,
        "run": fact("run"),
        "created_at": one.created_at,
        "status": one.status,
        "proven": one.proven,
        "abandoned": one.abandoned,
        "trigger": fact("trigger"),
        "step": fact("step"),
        "metrics": dict(manifest.metrics) if manifest else None,
        "frozen_time_us": fact("frozen_time_us"),
        "memory_bytes": fact("memory_bytes"),
        "stored_bytes": fact("stored_bytes"),
        "tasks": fact("tasks"),
        "command": list(manifest.command) if manifest else None,
    }


def local_time(iso: str) -> str:
    """``2026-11-21 21:45:12`` where the reader is."""
    return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M:%S}"


def status_word(status: Status) -> Text:
    """``Completed``, ``Incomplete`` or ``Corrupt``, in its colour."""
    word, style = _STATUS[status]
    return Text(word, style=style)


@dataclass(frozen=True)
class _Column:
    header: str
    importance: int  # the least important ones go first where the terminal is narrow
    cells: list[Text]
    right: bool = False

    @property
    def width(self) -> int:
        return max(len(self.header), *(cell.cell_len for cell in self.cells)) + 2


def print_snapshots(snapshots: Sequence[Snapshot], console: Console) -> None:
    """A table, newest last, and a line for each snapshot that is not simply complete.

    Drops columns rather than break lines where the terminal is narrow; what is not a terminal gets all of them.
    """

    def facts(tell: Callable[[Manifest], str]) -> list[Text]:
        return [Text(tell(one.manifest)) if one.manifest else Text(_NOTHING, style="dim") for one in snapshots]

    columns = [
        _Column("ID", 9, [Text(one.id) for one in snapshots]),
        _Column("Time", 2, [Text(local_time(one.created_at)) for one in snapshots]),
        _Column("", 7, [Text(ago(one.created_at), style="dim") for one in snapshots]),
        _Column("Status", 8, [status_word(one.status) for one in snapshots]),
        _Column("Trigger", 4, facts(lambda manifest: manifest.trigger)),
        _Column("Step", 3, facts(lambda manifest: _count(manifest.step)), right=True),
        _Column("Pause", 6, facts(lambda manifest: _pause(manifest.frozen_time_us)), right=True),
        _Column("Memory", 1, facts(lambda manifest: format_size(manifest.memory_bytes)), right=True),
        _Column("Stored", 5, facts(lambda manifest: format_size(manifest.stored_bytes)), right=True),
    ]
    if all(one.manifest is None or one.manifest.step is None for one in snapshots):
        columns = [column for column in columns if column.header != "Step"]
    while console.is_terminal and sum(column.width for column in columns) > console.width and len(columns) > 1:
        columns.remove(min(columns, key=lambda column: column.importance))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(
            column.header, justify="right" if column.right else "left", no_wrap=True, min_width=column.width - 2
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    if not console.is_terminal:
        console = Console(file=console.file, width=sum(column.width for column in columns))
    console.print(table)
    remarks = [remark for one in snapshots if (remark := _remark(one))]
    if remarks:
        console.print()
    for remark in remarks:
        console.print(remark, soft_wrap=True)


def snapshot_facts(one: Snapshot) -> RenderableType:
    """Everything worth knowing about one snapshot, a fact a line."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Snapshot", one.id)
    table.add_row("Status", status_word(one.status))
    if one.reason:
        table.add_row("Why", Text(one.reason))
    table.add_row("Time", f"{local_time(one.created_at)} ({ago(one.created_at)})")
    if one.abandoned:
        table.add_row("Abandoned", "the training went on from an older snapshot")
    if one.proven is not None:
        table.add_row("Trial restore", "worked" if one.proven else "failed")
    for name, fact in _manifest_facts(one.manifest) if one.manifest else ():
        table.add_row(name, Text(fact))
    table.add_row("Path", Text(str(one.path)))
    return table


def _manifest_facts(manifest: Manifest) -> list[tuple[str, str]]:
    facts = [
        ("Trigger", manifest.trigger),
        ("Run", manifest.run),
        ("Command", shlex.join(manifest.command)),
        ("Directory", manifest.cwd),
    ]
    if manifest.step is not None:
        facts.append(("Step", _count(manifest.step)))
    if manifest.metrics:
        facts.append(("Metrics", ", ".join(f"{name} {value:.6g}" for name, value in manifest.metrics.items())))
    facts += [
        ("Pause", _pause(manifest.frozen_time_us)),
        (
            "Memory",
            f"{format_size(manifest.memory_bytes)} in {manifest.tasks} task{'s' if manifest.tasks != 1 else ''}",
        ),
        ("Stored", f"{format_size(manifest.stored_bytes)} in {len(manifest.files)} files"),
        ("Needs", f"{len(manifest.external)} files outside of the snapshot"),
        ("CRIU", manifest.criu_version),
        ("Kernel", manifest.kernel),
        ("Processor", f"{manifest.cpu.model} ({manifest.cpu.arch})"),
    ]
    return facts + [("Note", note) for note in manifest.notes]


def _remark(one: Snapshot) -> Text | None:
    if one.reason:
        return Text.assemble(f"{one.id}  ", status_word(one.status), f": {one.reason}")
    if one.abandoned:
        return Text(f"{one.id}  abandoned: the training went on from an older snapshot", style="dim")
    return None


def _count(number: int | None) -> str:
    return _NOTHING if number is None else f"{number:,}"


def _pause(frozen_time_us: int | None) -> str:
    return _NOTHING if frozen_time_us is None else format_duration(frozen_time_us / 1e6)
