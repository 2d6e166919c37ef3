"""Which snapshots to keep."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from criu_train.store.snapshot import Snapshot
from criu_train.store.state import Run


def newest_usable(snapshots: Sequence[Snapshot], run: str | None) -> Snapshot | None:
    """The newest snapshot of the run that looks whole and was not abandoned; without one, the newest of any run.

    By sequence number, not by clock.
    """
    usable = [one for one in snapshots if one.status == "complete" and not one.abandoned]
    return max(usable, key=lambda one: _rank(one, run), default=None)


def newest_of(snapshots: Sequence[Snapshot], run: str) -> Snapshot | None:
    """The newest usable snapshot of this very run."""
    return newest_usable([one for one in snapshots if one.manifest is not None and one.manifest.run == run], run)


def superfluous(
    snapshots: Sequence[Snapshot], keep: int, run: Run | None, spared: Collection[str] = ()
) -> list[Snapshot]:
    """What a prune that keeps ``keep`` (at least 1) removes, oldest first; ``run`` is the current one.

    Of the complete ones the newest of the run stay, then the newest of other runs, then abandoned ones; so what
    ``newest_usable`` names always stays. ``spared`` (ids) stay beside them, and so does one of each run that the run
    spares: what made a restore fail may be found and mended much later. Corrupt ones go once they are older than all
    that are kept; what is incomplete goes.
    """
    complete = [one for one in snapshots if one.status == "complete"]
    ranked = sorted(complete, key=lambda one: _rank(one, run.id if run else None), reverse=True)
    left_behind = (newest_of(complete, other) for other in (run.spares if run else ()))
    kept = {*spared, *(one.id for one in (*ranked[:keep], *left_behind) if one is not None)}
    oldest_kept = min((one.sequence for one in ranked[:keep]), default=0)
    return [
        one
        for one in sorted(snapshots, key=lambda one: one.sequence)
        if one.id not in kept and (one.status != "corrupt" or one.sequence < oldest_kept)
    ]


def _rank(one: Snapshot, run: str | None) -> tuple[bool, bool, int]:
    """The larger, the more it is worth. Numbers alone would put what was imported before what this store made."""
    return not one.abandoned, one.manifest is not None and one.manifest.run == run, one.sequence
