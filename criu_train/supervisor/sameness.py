"""Whether the state that was restored is the one that was saved, by the digests of the training's own hooks."""

from __future__ import annotations

import asyncio
import time

from criu_train.cell.cell import Cell
from criu_train.errors import EnvironmentUnfitError, RestoreFailedError
from criu_train.store.manifest import Manifest
from criu_train.supervisor.hook_files import HookFiles

_LOOK_S = 0.005


async def see_same(cell: Cell, manifest: Manifest, hooks: HookFiles | None, limit_s: float) -> None:
    """Wait until every process that had a digest at the dump has made it again.

    Raises RestoreFailedError where one differs, EnvironmentUnfitError where there is no way to find out.
    Those processes make no step before they have. Where the training has ended meanwhile, there is nothing to compare.
    """
    if manifest.hooks is None or not manifest.hooks.digests:
        return
    if hooks is None:
        raise EnvironmentUnfitError(
            "the digests of the state can't be compared without the directory for hooks",
            tip="see to what the warning tells, and run the same command again",
        )
    left, until = dict(manifest.hooks.digests), time.monotonic() + limit_s
    while left and not cell.ended.done():
        hooks.beat()
        for pid, digest in list(left.items()):
            member = hooks.member(int(pid))
            if member is None or member.digested != hooks.generation + 1:
                continue
            if member.digest != digest:
                raise RestoreFailedError(
                    f"the state of process {pid} is not the one that was saved: its digest is another",
                    tip="is the digest the same whenever it is made? did memory or disk fail? see dmesg",
                )
            del left[pid]
        if left and time.monotonic() >= until:
            raise RestoreFailedError(
                f"process {min(left, key=int)} has not made the digest of its state in time",
                tip="give it longer with --restore-timeout",
            )
        await asyncio.sleep(_LOOK_S)
