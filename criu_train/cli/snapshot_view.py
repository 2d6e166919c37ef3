"""One snapshot as people and programs read it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from criu_train.cli.console import facts_table
from criu_train.store.environment import Environment
from criu_train.store.manifest import Manifest
from criu_train.store.snapshot import Listed, Snapshot, Status
from criu_train.units import ago, format_duration, format_size

# A word for people, and its colour.
PROVEN = {None: "", True: "worked", False: "failed"}
STATUS = {"complete": ("Completed", "green"), "incomplete": ("Incomplete", "yellow"), "corrupt": ("Corrupt", "red")}
NOTHING = "–"  # noqa: RUF001


def as_json(one: Listed) -> dict[str, Any]:
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
        "added_bytes": fact("added_bytes"),
        "tasks": fact("tasks"),
        "command": list(manifest.command) if manifest else None,
    }


def local_time(iso: str) -> str:
    """``2026-11-21 21:45:12`` where the reader is."""
    return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M:%S}"


def status_word(status: Status) -> Text:
    """``Completed``, ``Incomplete`` or ``Corrupt``, in its colour."""
    word, style = STATUS[status]
    return Text(word, style=style)


def snapshot_facts(one: Snapshot) -> RenderableType:
    """What is worth knowing about one snapshot, a fact a line; all but its path."""
    table = facts_table()
    table.add_row("Snapshot", one.id)
    table.add_row("Status", status_word(one.status))
    if one.reason:
        table.add_row("Why", Text(one.reason))
    table.add_row("Time", f"{local_time(one.created_at)} ({ago(one.created_at)})")
    if one.abandoned:
        table.add_row("Abandoned", "the training went on from an older snapshot")
    if one.proven is not None:
        table.add_row("Trial restore", PROVEN[one.proven])
    for name, fact in _manifest_facts(one.manifest) if one.manifest else ():
        table.add_row(name, Text(fact))
    if not one.seal.is_plain:
        table.add_row("Encryption", "AES-256-GCM, with the key of its store")
    return table


def _manifest_facts(manifest: Manifest) -> list[tuple[str, str]]:
    facts = [
        ("Trigger", manifest.trigger),
        ("Run", manifest.run),
        ("Command", shlex.join(manifest.command)),
        ("Directory", manifest.cwd),
    ]
    if manifest.step is not None:
        facts.append(("Step", count(manifest.step)))
    if manifest.metrics:
        facts.append(("Metrics", ", ".join(f"{name} {value:.6g}" for name, value in manifest.metrics.items())))
    if manifest.aligned is not None:
        facts.append(("Moment", "between two steps" if manifest.aligned else "not between two steps"))
    facts += [
        ("Pause", pause(manifest.frozen_time_us)),
        (
            "Memory",
            f"{format_size(manifest.memory_bytes)} in {manifest.tasks} task{'s' if manifest.tasks != 1 else ''}",
        ),
        ("Stored", f"{format_size(manifest.stored_bytes)} in {len(manifest.files)} files"),
        ("Added", added(manifest.added_bytes)),
        ("Needs", f"{len(manifest.external)} files outside of the snapshot"),
        *_environment_facts(manifest.environment),
        ("CRIU", manifest.criu_version),
        ("Kernel", manifest.kernel),
        ("Processor", f"{manifest.cpu.model} ({manifest.cpu.arch})"),
    ]
    return facts + [("Note", note) for note in manifest.notes]


def _environment_facts(environment: Environment | None) -> list[tuple[str, str]]:
    """Python and the number of packages; the code's version."""
    if environment is None:
        return []
    count = environment.package_count
    packages = f"{count} package{'s' if count != 1 else ''}" if count else ""
    python = ", ".join(filter(None, (str(environment.python) if environment.python else "", packages)))
    code = str(environment.code) if environment.code else ""
    return [(name, fact) for name, fact in (("Python", python), ("Code", code)) if fact]


def added(added_bytes: int | None) -> str:
    """What a snapshot added to the disk, as far as somebody counted."""
    return NOTHING if added_bytes is None else format_size(added_bytes)


def count(number: int | None) -> str:
    """``12,000``."""
    return NOTHING if number is None else f"{number:,}"


def epoch(metrics: Mapping[str, float]) -> str:
    """``3``, or ``2.5`` where a framework counts so."""
    return f"{metrics['epoch']:g}" if "epoch" in metrics else NOTHING


def loss(metrics: Mapping[str, float]) -> str:
    """That of the training, where it is told."""
    names = [name for name in metrics if name.lower() in ("loss", "train_loss", "training_loss")]
    return f"{metrics[names[0]]:.6g}" if names else NOTHING


def pause(frozen_time_us: int | None) -> str:
    """How long the training stood still."""
    return NOTHING if frozen_time_us is None else format_duration(frozen_time_us / 1e6)
