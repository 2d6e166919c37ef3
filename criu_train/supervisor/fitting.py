"""Whether a snapshot fits: whole, and at home on this machine and in this place. Asked before anything is touched."""

from __future__ import annotations

from pathlib import Path

from criu_train.criu.find import Criu
from criu_train.criu.images import Images
from criu_train.errors import EnvironmentUnfitError, RestoreFailedError
from criu_train.store.integrity import verify
from criu_train.store.manifest import Manifest
from criu_train.store.snapshot import Snapshot
from criu_train.supervisor.feeding import CHECK_THE_DISK
from criu_train.workspace.environment import compare
from criu_train.workspace.listing import Listing
from criu_train.workspace.place import compare_data, compare_place


def verified(snapshot: Snapshot) -> Manifest:
    """Raises RestoreFailedError for a snapshot that is not whole; packs are checked when they are read."""
    if snapshot.status != "complete" or snapshot.manifest is None:
        raise RestoreFailedError(
            f"{snapshot.status}: {snapshot.reason}", tip="`criu-train snapshot prune` removes what can't be restored"
        )
    for problem in verify(snapshot, packs=False):
        raise RestoreFailedError(f"corrupt: {problem}", tip=CHECK_THE_DISK)
    return snapshot.manifest


def fit(snapshot: Snapshot, manifest: Manifest, listing: Listing, *, criu: Criu, store: Path) -> tuple[str, ...]:
    """Warnings. Raises RestoreFailedError, or EnvironmentUnfitError for what is no snapshot's fault."""
    place = tuple(compare_place(manifest, listing, store=store, here=Path.cwd()))
    for finding in place:
        if finding.blocking:
            raise EnvironmentUnfitError(finding.what, tip=finding.tip)
    machine = compare(manifest, criu_version=criu.version)
    data = compare_data(listing, Images(snapshot.images, criu.pycriu, snapshot.read_image))
    findings = (*machine, *data, *place)
    for finding in findings:
        if finding.blocking:
            raise RestoreFailedError(finding.what, tip=finding.tip)
    return tuple(finding.what for finding in findings)
