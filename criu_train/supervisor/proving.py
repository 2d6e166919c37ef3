"""Trial restores: whether a snapshot can be restored here and now, seen without running a line of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import psutil

from criu_train.archive.worker_directory import WorkerDirectory
from criu_train.criu.find import find_criu
from criu_train.errors import EnvironmentUnfitError, RestoreFailedError
from criu_train.store.manifest import Manifest
from criu_train.store.seal import told
from criu_train.store.snapshot import Snapshot
from criu_train.store.store import Store
from criu_train.supervisor.control import runtime_directory
from criu_train.supervisor.fitting import fit, verified
from criu_train.workspace.listing import listing_of

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from criu_train.supervisor.proof_cell import main; main()"
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
# Whoever is ended takes all that it has started along.
_APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "--ipc", "--uts")
_LIMIT_S = 600.0
_MORE_S = 60.0  # for all but CRIU
_SPARE = 256 << 20


async def prove(store: Store, snapshot: Snapshot, limit_s: float = _LIMIT_S) -> tuple[str, ...]:
    """Restore the snapshot into namespaces of its own, leave its tasks stopped, look at them, and end them.

    Returns why it can't be restored, nothing when it can, and marks it in the store. Needs as much free memory as the
    training has. Raises EnvironmentUnfitError where this machine can't try; the snapshot is not marked then.
    """
    try:
        manifest = await asyncio.to_thread(_looked_at, store, snapshot)
    except RestoreFailedError as error:
        problems: tuple[str, ...] = (str(error),)
    else:
        if psutil.virtual_memory().available < manifest.memory_bytes + _SPARE:
            raise EnvironmentUnfitError(
                "there is not enough free memory for a trial restore",
                tip="it needs as much as the training has; try when the training has ended, or on another machine",
            )
        with contextlib.closing(WorkerDirectory(runtime_directory(), "proof-")) as scratch:
            paths = {"store": str(store.layout.root), "snapshot": str(snapshot.path), "scratch": str(scratch.path)}
            problems = await _apart({**paths, "limit_s": limit_s, "seal": told(snapshot.seal)}, limit_s + _MORE_S)
    if snapshot.path.exists():  # else it was pruned meanwhile
        store.mark_proven(snapshot.id, not problems)
    return problems


def _looked_at(store: Store, snapshot: Snapshot) -> Manifest:
    """Whatever a restore asks before it touches anything."""
    manifest = verified(snapshot)
    fit(snapshot, manifest, listing_of(snapshot), criu=find_criu(), store=store.layout.root)
    return manifest


async def _apart(order: dict[str, object], limit_s: float) -> tuple[str, ...]:
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", "19", *_APART, sys.executable, "-c", _PROGRAM, _PACKAGE_PARENT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        answer, said = await asyncio.wait_for(process.communicate(json.dumps(order).encode()), limit_s)
        return tuple(json.loads(answer))
    except TimeoutError:
        return (f"the trial restore took longer than {limit_s:.0f} s",)
    except ValueError:
        last = (said.decode(errors="replace").strip().splitlines() or ["it ended without a word"])[-1]
        raise EnvironmentUnfitError(
            f"the trial restore could not be made: {last}",
            tip="it needs overlay file systems and network namespaces, which some containers do not allow",
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
