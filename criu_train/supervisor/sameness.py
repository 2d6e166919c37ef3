"""Whether the state that was restored is the one that was saved, by the digests of the training's own hooks."""

from __future__ import annotations

import asyncio
import time

from criu_train.cell import processes
from criu_train.cell.cell import Cell
from criu_train.errors import EnvironmentUnfitError, RestoreFailedError
from criu_train.store.manifest import Manifest
from criu_train.supervisor.hook_files import HookFiles
from criu_train.supervisor.restore_errors import CutShortError, OtherStateError

_LOOK_S, _LIVING_S = 0.005, 0.5


async def see_same(cell: Cell, manifest: Manifest, hooks: HookFiles | None, limit_s: float) -> None:
    """Wait until every process that had a digest at the dump has made it again.

    Raises OtherStateError where one differs, CutShortError where one is gone, EnvironmentUnfitError where there is no
    way to find out.
    Those processes make no step before they have. Where the training has ended meanwhile, there is nothing to compare.
    """
    if manifest.hooks is None or not manifest.hooks.digests:
        return
    if hooks is None:
        raise EnvironmentUnfitError(
            "the digests of the state can't be compared without the directory for hooks",
            tip="see to what the warning tells, and run the same command again",
        )
    left, now = dict(manifest.hooks.digests), time.monotonic()
    until, looked_at = now + limit_s, now
    while left and not cell.ended.done():
        hooks.beat()
        for pid, digest in list(left.items()):
            member = hooks.member(int(pid))
            if member is None or member.digested != hooks.generation + 1:
                continue
            if member.digest != digest:
                raise OtherStateError(
                    f"the state of process {pid} is not the one that was saved: its digest is another",
                    tip="is the digest the same whenever it is made? did memory or disk fail? see dmesg",
                )
            del left[pid]
        now = time.monotonic()
        if left and now - looked_at > _LIVING_S:
            looked_at = now
            if gone := {int(pid) for pid in left} - {processes.pid_in_cell(one) for one in cell.tree()}:
                raise CutShortError(f"process {min(gone)} ended at once", tip="see dmesg: was memory short?")
        if left and now >= until:
            raise RestoreFailedError(
                f"process {min(left, key=int)} has not made the digest of its state in time",
                tip="give it longer with --restore-timeout",
            )
        await asyncio.sleep(_LOOK_S)
