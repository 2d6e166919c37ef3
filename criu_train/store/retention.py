"""Which snapshots to keep."""

from __future__ import annotations

from collections.abc import Sequence

from criu_train.store.snapshot import Snapshot


def newest_usable(snapshots: Sequence[Snapshot]) -> Snapshot | None:
    """The newest snapshot that looks whole and was not abandoned; by sequence number, not by clock."""
    usable = [one for one in snapshots if one.status == "complete" and not one.abandoned]
    return max(usable, key=lambda one: one.sequence, default=None)


def superfluous(snapshots: Sequence[Snapshot], keep: int) -> list[Snapshot]:
    """What a prune that keeps ``keep`` (at least 1) removes, oldest first.

    Of the complete ones the newest stay, abandoned ones only where fewer others are left than ``keep``; so the
    newest usable one always stays. Corrupt ones go once they are older than all that stay; what is incomplete goes.
    """
    complete = [one for one in snapshots if one.status == "complete"]
    ranked = sorted(complete, key=lambda one: (not one.abandoned, one.sequence), reverse=True)
    kept = {one.id for one in ranked[:keep]}
    oldest_kept = min((one.sequence for one in ranked[:keep]), default=0)
    return [
        one
        for one in sorted(snapshots, key=lambda one: one.sequence)
        if one.id not in kept and (one.status != "corrupt" or one.sequence < oldest_kept)
    ]
