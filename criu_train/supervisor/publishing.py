"""From what a dump has found out to a snapshot that is complete."""

from __future__ import annotations

from dataclasses import dataclass, field

from criu_train.archive.archivist import CaptureSummary
from criu_train.cell.records import CriuExit, Cut
from criu_train.criu.images import Images
from criu_train.progress.line import NOTHING, Told
from criu_train.progress.output import progress_at
from criu_train.store.draft import Draft
from criu_train.store.environment import Environment
from criu_train.supervisor.describing import describe_snapshot, notes_of
from criu_train.supervisor.devices import Devices
from criu_train.supervisor.dump_context import DumpContext, Dumped
from criu_train.supervisor.rendezvous import Meeting
from criu_train.workspace.listing import LISTING, Listing, listing_to_json


@dataclass
class Findings:
    """Of one dump, as it goes on. ``unread``: what waited to be read at the cut and is lost. ``told``: by hooks."""

    at_work: bool | None = None
    environment: Environment | None = None
    captured: CaptureSummary | None = None
    cut: Cut | None = None
    unread: str = ""
    meeting: Meeting = field(default_factory=Meeting)
    told: Told = NOTHING


def publish(
    context: DumpContext,
    draft: Draft,
    listing: Listing,
    *,
    found: Findings,
    devices: Devices,
    ended: CriuExit | None,
) -> Dumped:
    """Describe the draft and make it durable. ``ended``: None before CRIU has. Raises OSError."""
    cut, captured = found.cut, found.captured
    assert cut is not None and captured is not None
    draft.write(LISTING, listing_to_json(listing))
    notes = notes_of(listing, captured.spilled_bytes, ended, context.cell.strays(), found.unread)
    if late := found.meeting.late:
        notes += (f"processes that were not ready in time (before_dump, digests: --align-timeout): {late}",)
    if devices.problem:
        notes += (devices.problem,)
    snapshot = draft.publish(
        describe_snapshot(
            run=context.run,
            criu_version=context.criu.version,
            images=Images(draft.images, context.criu.pycriu, draft.read_image),
            memory_bytes=captured.memory_bytes,
            spilled_bytes=captured.spilled_bytes,
            listing=listing,
            cut=cut,
            journal=context.tracker.journal.name,
            root_pid=context.cell.root_pid_in_cell,
            notes=notes,
            terminal=context.cell.terminal,
            environment=found.environment,
            cuda=devices.used,
            aside_us=devices.aside_us,
            at_work=found.at_work,
            progress=_printed(context, listing).then(found.told),
            meeting=found.meeting,
            hooks=context.rendezvous.facts(found.meeting),
        ),
        log_ended=ended is not None,
    )
    return Dumped(snapshot, notes)


def _printed(context: DumpContext, listing: Listing) -> Told:
    """How far the training was at the cut: what it has written since is no part of the snapshot."""
    output = context.store.layout.output_log
    size = next((entry.size for entry in listing.entries if entry.path == str(output)), 0)
    try:
        return progress_at(output, size, context.options.progress_regex)
    except Exception:  # no snapshot is lost for want of something that only explains
        return NOTHING
