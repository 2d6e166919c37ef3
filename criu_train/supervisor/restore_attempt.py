"""One try to restore one snapshot: looked at, files rolled back, CRIU into a new cell, and seen alive.

Whatever goes wrong, the cell ends, what was done to files is undone, and the training is as it was before.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from criu_train.cell import processes
from criu_train.cell.cell import Cell
from criu_train.cell.launch import KEPT_FD
from criu_train.cell.records import Ended
from criu_train.criu.command import restore_command
from criu_train.criu.connections import FILES, Reconnected
from criu_train.criu.explain import explain
from criu_train.criu.images import Images
from criu_train.errors import CriuTrainError, EnvironmentUnfitError, RestoreFailedError
from criu_train.moments import reached
from criu_train.store.manifest import Manifest
from criu_train.store.snapshot import Snapshot
from criu_train.supervisor.devices import Devices
from criu_train.supervisor.feeding import Feeder
from criu_train.supervisor.fitting import fit, verified
from criu_train.supervisor.hook_files import HookFiles, admit, close
from criu_train.supervisor.lent_names import take_back
from criu_train.supervisor.machine_lock import machine_lock
from criu_train.supervisor.output import our_terminal_size
from criu_train.supervisor.reconnecting import free_ports, notes_of, reconnect_here
from criu_train.supervisor.restore_context import RestoreContext, Restored
from criu_train.supervisor.restore_errors import CutShortError, SurroundingsError, UndoFailedError
from criu_train.supervisor.sameness import see_same
from criu_train.workspace.blobs import BlobReader
from criu_train.workspace.journal import Journals
from criu_train.workspace.listing import Listing, listing_of
from criu_train.workspace.place import settle_in
from criu_train.workspace.rollback import Rollback, roll_back

# How long a restored tree is looked at before it counts as alive.
_ALIVE_AFTER_S = 0.3
# The end of one that is gone is told in a moment.
_END_IS_TOLD_S = 5.0


@dataclass(frozen=True)
class _Chosen:
    """A snapshot that was found whole and fit for this machine; what is to be restored of it, and by whom."""

    manifest: Manifest
    listing: Listing
    feeder: Feeder
    reconnected: Reconnected
    warnings: tuple[str, ...]


class RestoreAttempt:
    """Raises CriuTrainError or OSError where the snapshot can't be restored; those of ``restore_errors`` tell more."""

    def __init__(self, context: RestoreContext, snapshot: Snapshot) -> None:
        self._context = context
        self._snapshot = snapshot

    async def restore(self) -> Restored:
        self._tell("checking it")
        chosen = await self._choose()
        reached("restore-chosen")
        turn = partial(self._tell, "waiting for another job's dump or restore")
        async with machine_lock(self._context.runtime, math.inf, must_wait=turn):
            self._tell("putting files back")
            # Before the files: where another training has the place for hooks, its pages are not to be rolled back.
            hooks = self._context.new_hooks(self._snapshot, chosen.listing)
            try:
                rollback = await asyncio.to_thread(self._roll_back, chosen)
            except BaseException:
                close(hooks)
                raise
            reached("rolled-back")
            cell = await self._bring_back(chosen, rollback, hooks)
        return Restored(
            cell=cell,
            snapshot=self._snapshot,
            listing=chosen.listing,
            rollback_summary=rollback.summary,
            hooks=hooks,
            warnings=(*chosen.warnings, *rollback.warnings),
            notes=notes_of(chosen.reconnected),
        )

    def _tell(self, phase: str) -> None:
        manifest = self._snapshot.manifest
        self._context.tell(self._snapshot.id, manifest.memory_bytes if manifest else 0, phase)

    async def _choose(self) -> _Chosen:
        """Reads only."""
        context, snapshot = self._context, self._snapshot
        manifest = await asyncio.to_thread(verified, snapshot)
        feeder = Feeder(context.keeper, snapshot, manifest)
        await feeder.check()
        listing, layout = listing_of(snapshot), context.store.layout
        warnings = await asyncio.to_thread(fit, snapshot, manifest, listing, criu=context.criu, store=layout.root)
        listing, renamed = settle_in(listing, layout, rename=feeder.streams)
        reconnected = Reconnected()
        if feeder.streams:
            reconnected = await asyncio.to_thread(self._reconnect, renamed)
        return _Chosen(manifest, listing, feeder, reconnected, tuple(warnings))

    async def _bring_back(self, chosen: _Chosen, rollback: Rollback, hooks: HookFiles | None) -> Cell:
        """The tree, in a new cell; or all is undone."""
        cell: Cell | None = None
        try:
            cell = await self._context.new_cell()
            admit(hooks, cell.init_pid)
            reached("cell-ready")
            self._tell("its processes come back")
            await self._take_back(chosen)
            await self._run_criu(cell, chosen)
            reached("restored")
            # From here on the tree writes: whoever comes after a crash must not undo the rollback any more.
            await asyncio.to_thread(rollback.commit)
            reached("rollback-committed")
            await cell.adopt(chosen.manifest.root_pid)
            await _see_alive(cell)
            await see_same(cell, chosen.manifest, hooks, self._context.options.restore_timeout)
        except BaseException as error:
            close(hooks)
            if cell is not None:
                await cell.kill()
                with contextlib.suppress(CriuTrainError):
                    await self._take_back(chosen)
                # What the tree did before it was found wanting is undone first, then the rollback itself.
                with contextlib.suppress(Exception):
                    again = await asyncio.to_thread(self._roll_back, chosen)
                    try:
                        await asyncio.to_thread(again.commit)
                    except OSError:
                        await asyncio.to_thread(again.undo)
            await asyncio.to_thread(_undo, rollback)
            if isinstance(error, ConnectionError):
                raise CutShortError(
                    "the cell was lost while CRIU restored into it", tip="look into the kernel's log (dmesg)"
                ) from error
            raise
        return cell

    def _roll_back(self, chosen: _Chosen) -> Rollback:
        layout, snapshot, manifest = self._context.store.layout, self._snapshot, chosen.manifest
        journals = Journals.since(layout.journals, manifest.journal, manifest.journal_offset)
        keep = layout.rollback / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return roll_back(chosen.listing, BlobReader(snapshot.files, snapshot.seal), journals, _unused(keep))

    async def _take_back(self, chosen: _Chosen) -> None:
        await asyncio.to_thread(take_back, self._snapshot, chosen.listing, self._context.criu.pycriu)

    def _reconnect(self, renamed: Mapping[str, str]) -> Reconnected:
        return reconnect_here(self._snapshot, self._context.criu.pycriu, self._context.options.tcp, renamed)

    async def _run_criu(self, cell: Cell, chosen: _Chosen) -> None:
        reconnected = chosen.reconnected
        replaced = {FILES: reconnected.image} if reconnected.image is not None else {}
        await free_ports(self._snapshot, reconnected, self._context.criu.pycriu)
        async with chosen.feeder.images(cell, replaced) as images:
            await self._restore_from(images, cell, chosen.manifest)

    async def _restore_from(self, images: Path, cell: Cell, manifest: Manifest) -> None:
        context, snapshot = self._context, self._snapshot
        log = context.store.layout.root / f"restore-{snapshot.sequence:06d}.log"
        log.unlink(missing_ok=True)
        terminal = (KEPT_FD, manifest.terminal) if manifest.terminal else None
        argv = restore_command(context.criu, images=images, log=log, stream=manifest.packed, terminal=terminal)
        tasks = Images(snapshot.images, context.criu.pycriu, snapshot.read_image).tasks()
        taken = {number for task in tasks for number in (task.pid, *task.threads)}
        ended = await cell.criu(
            argv,
            limit_s=context.options.restore_timeout,
            stderr=log,
            next_pid=free_range(manifest.ns_last_pid + 1, taken),
            terminal=(context.store.layout.output_log, our_terminal_size()) if terminal else None,
        )
        if ended.problem:  # no snapshot's fault: the next one would fail the same way
            raise EnvironmentUnfitError(
                f"CRIU could not be started: {ended.problem}", tip="`criu-train doctor` tells what this machine lacks"
            )
        text = log.read_text(errors="replace") if log.exists() else ""
        if ended.timed_out or ended.code != 0:
            explanation = explain(text, ended.code, timed_out=ended.timed_out)
            if ended.code == -signal.SIGKILL and not ended.timed_out:
                raise CutShortError(explanation.what, tip=explanation.tip)
            failed = SurroundingsError if explanation.mendable else RestoreFailedError
            raise failed(explanation.what, tip=explanation.tip)
        if manifest.cuda:
            await Devices(cell, context.store.layout.root).restored(manifest.memory_bytes)
        log.unlink(missing_ok=True)


def _undo(rollback: Rollback) -> None:
    try:
        rollback.undo()
    except OSError as error:
        raise UndoFailedError(
            f"a restore failed and its rollback can't be undone: {error}",
            tip="see to the cause (a full disk?) and run again: the rest is undone first",
        ) from error


async def _see_alive(cell: Cell) -> None:
    """Raises RestoreFailedError when the restored tree is gone or stands still from the first moment.

    One that has come to an end of its own is no failure: it may have been at its last step.
    """
    ended = await _end_within(cell, _ALIVE_AFTER_S)
    if ended is None and processes.start_time(cell.root_pid) is None:
        ended = await _end_within(cell, _END_IS_TOLD_S)
        if ended is None:
            raise RestoreFailedError("the restored training is not there", tip="see the restore log in the store")
    if ended is not None:
        if ended.code < 0:
            raise (CutShortError if ended.code == -signal.SIGKILL else RestoreFailedError)(
                f"the restored training was killed by signal {-ended.code} at once",
                tip="did the machine, its libraries or its devices change since the snapshot?",
            )
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        if psutil.Process(cell.root_pid).status() == psutil.STATUS_TRACING_STOP:
            raise RestoreFailedError("the restored training stands still", tip="see the restore log in the store")


async def _end_within(cell: Cell, seconds: float) -> Ended | None:
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(asyncio.shield(cell.ended), seconds)
    return None


def free_range(start: int, taken: set[int], width: int = 64) -> int:
    """The first number from ``start`` on with ``width`` free ones behind it: CRIU's own processes go there."""
    while clash := next((n for n in range(start, start + width) if n in taken), None):
        start = clash + 1
    return start


def _unused(path: Path) -> Path:
    candidate, n = path, 1
    while candidate.exists():
        candidate, n = path.with_name(f"{path.name}-{n}"), n + 1
    return candidate
