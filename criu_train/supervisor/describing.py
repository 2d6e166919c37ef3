"""What the manifest tells about a snapshot: gathered from the images, the listing and this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from criu_train.cell.processes import command_of
from criu_train.cell.records import CriuExit, Cut
from criu_train.criu.images import Images
from criu_train.progress.line import NOTHING, Told
from criu_train.store.environment import Environment
from criu_train.store.manifest import ExternalFile, HookFacts, Manifest, ManifestFields
from criu_train.store.snapshot import Snapshot
from criu_train.store.state import Run
from criu_train.supervisor.rendezvous import Meeting
from criu_train.units import format_size
from criu_train.workspace.fingerprint import external_file, fingerprint
from criu_train.workspace.listing import Listing
from criu_train.workspace.survey import data_files


def describe_snapshot(
    *,
    run: Run,
    criu_version: str,
    images: Images,
    memory_bytes: int,
    spilled_bytes: int,
    listing: Listing,
    cut: Cut,
    journal: str,
    root_pid: int,
    notes: Sequence[str],
    meeting: Meeting,
    terminal: str | None = None,
    environment: Environment | None = None,
    cuda: bool = False,
    aside_us: int | None = None,
    at_work: bool | None = None,
    progress: Told = NOTHING,
    hooks: HookFacts | None = None,
) -> ManifestFields:
    """``root_pid`` as the cell numbers it. CRIU's own figures are missing from a dump that has not ended yet.

    ``aside_us``: how long the owners of GPU memory stood still, which is longer than CRIU took.

    ``progress``: what the output had told by the cut. ``environment``: as the survey before the dump found it; the data
    are told here.
    """
    host, stats = fingerprint(), images.dump_stats()
    ours = (hooks.directory + "/",) if hooks is not None else ()
    external = _external(images, {entry.path for entry in listing.entries}, ours)
    if environment is not None:
        environment = replace(environment, data=data_files(images.files(), external, listing.entries))
    return ManifestFields(
        command=run.command,
        cwd=run.cwd,
        criu_version=criu_version,
        kernel=host.kernel,
        boot_id=host.boot_id,
        cpu=host.cpu,
        tasks=len(images.tasks()),
        root_pid=root_pid,
        ns_last_pid=cut.last_pid,
        memory_bytes=memory_bytes,
        spilled_bytes=spilled_bytes,
        frozen_time_us=stats.get("frozen_time") if aside_us is None else aside_us,
        cuda=cuda,
        stats=stats,
        journal=journal,
        journal_offset=cut.journal_offset,
        external=external,
        environment=environment,
        terminal=terminal,
        step=progress.step,
        metrics={**({} if progress.epoch is None else {"epoch": progress.epoch}), **progress.metrics},
        at_work=at_work,
        aligned=meeting.aligned,
        parked_us=None if meeting.aligned is None else round(meeting.parked_s * 1e6),
        hooks=hooks,
        notes=tuple(notes),
    )


def told_in(manifest: Manifest) -> Told:
    """How far the training was."""
    metrics = dict(manifest.metrics)
    return Told(manifest.step, metrics.pop("epoch", None), metrics)


def pause_of(manifest: Manifest) -> float:
    """How long the dump has held the training up, seconds."""
    return ((manifest.frozen_time_us or 0) + (manifest.parked_us or 0)) / 1e6


def event_of(snapshot: Snapshot, seconds: float, notes: Sequence[str]) -> dict[str, Any]:
    """What ``events.jsonl`` tells of a dump that took so many seconds."""
    told = snapshot.manifest
    assert told is not None
    progress = told_in(told)
    return {
        "snapshot": snapshot.id,
        "trigger": told.trigger,
        "step": progress.step,
        "epoch": progress.epoch,
        "metrics": dict(progress.metrics),
        "frozen_time_us": told.frozen_time_us,
        "seconds": round(seconds, 3),
        "memory_bytes": told.memory_bytes,
        "stored_bytes": told.stored_bytes,
        "added_bytes": told.added_bytes,
        "tasks": told.tasks,
        "aligned": told.aligned,
        "parked_us": told.parked_us,
        "notes": list(notes),
    }


def notes_of(
    listing: Listing, spilled_bytes: int, ended: CriuExit | None, strays: Sequence[int], unread: str
) -> tuple[str, ...]:
    """What a person should know of a snapshot. ``ended``: None before CRIU has. ``strays``: PIDs that are not in it.

    ``unread``: what else is not in it, in words.
    """
    notes = [f"not saved (too large, or under a write lease): {path}" for path in listing.unsaved]
    if spilled_bytes:
        notes.append(
            f"{format_size(spilled_bytes)} did not fit into memory and went to the disk while the training stood still "
            "(--memory-limit)"
        )
    if ended is not None and ended.was_stopped:
        notes.append("CRIU was stopped in the middle and told to go on")
    if unread:
        notes.append(f"waiting to be read at the cut, not in the snapshot: {unread}")
    notes += [f"left the training's tree, not in the snapshot: {command_of(pid)}" for pid in strays]
    return tuple(notes)


def _external(images: Images, listed: set[str], ours: tuple[str, ...]) -> tuple[ExternalFile, ...]:
    """The files that a restore needs as they are; those of the workspace a rollback puts back, or tells.

    ``ours``: beginnings of paths that are made anew at every restore.
    """
    paths = {file.path for file in images.files() if not file.deleted and not file.path.startswith(ours)} - listed
    found = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):
            found.append(external_file(path))
    return tuple(found)
