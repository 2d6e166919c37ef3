"""What the manifest tells about a snapshot: gathered from the images, the listing and this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from criu_train.cell.records import Cut
from criu_train.criu.images import Images
from criu_train.store.manifest import ExternalFile, ManifestFields
from criu_train.store.state import Run
from criu_train.workspace.environment import external_file, fingerprint
from criu_train.workspace.listing import Listing


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
) -> ManifestFields:
    """``root_pid`` as the cell numbers it. CRIU's own figures are missing from a dump that has not ended yet."""
    host, stats = fingerprint(), images.dump_stats()
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
        frozen_time_us=stats.get("frozen_time"),
        stats=stats,
        journal=journal,
        journal_offset=cut.journal_offset,
        external=_external(images, {entry.path for entry in listing.entries}),
        notes=tuple(notes),
    )


def _external(images: Images, listed: set[str]) -> tuple[ExternalFile, ...]:
    """The files that a restore needs as they are; those of the workspace a rollback puts back, or tells."""
    paths = {file.path for file in images.files() if not file.deleted} - listed
    found = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):
            found.append(external_file(path))
    return tuple(found)
