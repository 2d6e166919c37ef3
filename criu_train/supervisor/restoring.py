"""Restoring: the newest snapshot that works, older ones after it, each with its reason when it is passed over."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from criu_train.cell import processes
from criu_train.cell.cell import Cell
from criu_train.cell.launch import KEPT_FD
from criu_train.criu.command import restore_command
from criu_train.criu.connections import FILES, Reconnected
from criu_train.criu.cure import cure
from criu_train.criu.explain import explain
from criu_train.criu.find import Criu
from criu_train.criu.images import Images
from criu_train.errors import CriuTrainError, EnvironmentUnfitError, RestoreFailedError
from criu_train.moments import reached
from criu_train.store.dump_log import read_log
from criu_train.store.manifest import Manifest
from criu_train.store.snapshot import Snapshot
from criu_train.store.store import Store
from criu_train.supervisor.blame import blame_the_snapshot
from criu_train.supervisor.devices import Devices
from criu_train.supervisor.feeding import ArchiveLostError, Feeder
from criu_train.supervisor.fitting import fit, verified
from criu_train.supervisor.hook_files import HookFiles, admit, close
from criu_train.supervisor.keeper import Keeper
from criu_train.supervisor.machine_lock import machine_lock
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.output import our_terminal_size
from criu_train.supervisor.reconnecting import free_ports, notes_of, reconnect_here
from criu_train.supervisor.restore_errors import CutShortError, OtherStateError, UndoFailedError
from criu_train.supervisor.sameness import see_same
from criu_train.workspace.blobs import BlobReader
from criu_train.workspace.journal import Journals
from criu_train.workspace.listing import Listing, listing_of
from criu_train.workspace.place import settle_in
from criu_train.workspace.rollback import Rollback, roll_back

# How long a restored tree is looked at before it counts as alive.
_ALIVE_AFTER_S = 0.3
# A process that is killed again and again for want of memory is not the snapshot's fault, nor does patience help.
_TRIES = 3


@dataclass(frozen=True)
class Attempt:
    """One snapshot that was tried; ``reason`` is None for the one that works."""

    snapshot: str
    reason: str | None
    tip: str | None = None


@dataclass(frozen=True)
class Restored:
    """A cell in which the training runs again."""

    cell: Cell
    snapshot: Snapshot
    listing: Listing
    rollback_summary: str
    hooks: HookFiles | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


CellFactory = Callable[[], Awaitable[Cell]]
HooksFactory = Callable[[Snapshot, Listing], HookFiles | None]
Tell = Callable[[str, int, str], None]


class Restorer:
    """Tries snapshots in the order given. ``new_cell`` starts an empty cell with a journal of its own, ``new_hooks``
    makes what the hooks of a snapshot's training look for.

    ``tell``: which snapshot, how much memory, and what is done about it now.
    """

    def __init__(
        self,
        *,
        store: Store,
        criu: Criu,
        keeper: Keeper,
        options: RunOptions,
        runtime: Path,
        new_cell: CellFactory,
        new_hooks: HooksFactory,
        tell: Tell = lambda snapshot, memory_bytes, phase: None,
    ) -> None:
        self._tell = tell
        self._store = store
        self._criu = criu
        self._keeper = keeper
        self._options = options
        self._runtime = runtime
        self._new_cell = new_cell
        self._new_hooks = new_hooks
        self.attempts: list[Attempt] = []
        self.only_digests = True  # have failed so far

    async def restore_first_that_works(self, snapshots: Sequence[Snapshot]) -> Restored | None:
        """None when none works; ``attempts`` then tells why. Raises CriuTrainError for what is no snapshot's fault."""
        for snapshot in snapshots:
            try:
                restored = await self._restore_patiently(snapshot)
            except (UndoFailedError, EnvironmentUnfitError, ArchiveLostError):
                raise  # no snapshot's fault
            except (CriuTrainError, OSError) as error:
                self.only_digests &= isinstance(error, OtherStateError)
                self.attempts.append(Attempt(snapshot.id, *blame_the_snapshot(error, self._store)))
            else:
                _release_peers(snapshot)
                self.attempts.append(Attempt(snapshot.id, None))
                return restored
            _release_peers(snapshot)
        return None

    async def _restore_patiently(self, snapshot: Snapshot) -> Restored:
        """Again when somebody was killed that took part: the cell, CRIU, the process that hands out the images."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(ArchiveLostError, CutShortError):
                return await self._restore(snapshot)
        return await self._restore(snapshot)

    async def _restore(self, snapshot: Snapshot) -> Restored:
        memory = snapshot.manifest.memory_bytes if snapshot.manifest else 0
        self._tell(snapshot.id, memory, "checking it")
        manifest = await asyncio.to_thread(verified, snapshot)
        feeder = Feeder(self._keeper, snapshot, manifest)
        await feeder.check()
        listing = listing_of(snapshot)
        root = self._store.layout.root
        warnings = await asyncio.to_thread(fit, snapshot, manifest, listing, criu=self._criu, store=root)
        listing, renamed = settle_in(listing, self._store.layout, rename=feeder.streams)
        reconnected = Reconnected()
        if feeder.streams:
            reconnected = await asyncio.to_thread(self._reconnect, snapshot, renamed)
        reached("restore-chosen")
        async with machine_lock(self._runtime, math.inf):
            self._tell(snapshot.id, memory, "putting files back")
            # Before the files: where another training has the place for hooks, its pages are not to be rolled back.
            hooks = self._new_hooks(snapshot, listing)
            try:
                rollback = await asyncio.to_thread(self._roll_back, snapshot, manifest, listing)
            except BaseException:
                close(hooks)
                raise
            reached("rolled-back")
            cell: Cell | None = None
            try:
                cell = await self._new_cell()
                admit(hooks, cell.init_pid)
                reached("cell-ready")
                self._tell(snapshot.id, memory, "its processes come back")
                await self._run_criu(cell, snapshot, manifest, feeder, reconnected)
                reached("restored")
                # From here on the tree writes: whoever comes after a crash must not undo the rollback any more.
                await asyncio.to_thread(rollback.commit)
                reached("rollback-committed")
                await cell.adopt(manifest.root_pid)
                await _see_alive(cell)
                await see_same(cell, manifest, hooks, self._options.restore_timeout)
            except BaseException as error:
                close(hooks)
                if cell is not None:
                    await cell.kill()
                    # What the tree did before it was found wanting is undone first, then the rollback itself.
                    with contextlib.suppress(Exception):
                        again = await asyncio.to_thread(self._roll_back, snapshot, manifest, listing)
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
        all_warnings = (*warnings, *rollback.warnings)
        return Restored(cell, snapshot, listing, rollback.summary, hooks, all_warnings, notes_of(reconnected))

    def _reconnect(self, snapshot: Snapshot, renamed: Mapping[str, str]) -> Reconnected:
        return reconnect_here(snapshot, self._criu.pycriu, self._options.tcp, renamed)

    def _roll_back(self, snapshot: Snapshot, manifest: Manifest, listing: Listing) -> Rollback:
        journals = Journals.since(self._store.layout.journals, manifest.journal, manifest.journal_offset)
        keep = self._store.layout.rollback / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return roll_back(listing, BlobReader(snapshot.files, snapshot.seal), journals, _unused(keep))

    async def _run_criu(
        self, cell: Cell, snapshot: Snapshot, manifest: Manifest, feeder: Feeder, reconnected: Reconnected
    ) -> None:
        replaced = {FILES: reconnected.image} if reconnected.image is not None else {}
        await free_ports(snapshot, reconnected, self._criu.pycriu)
        async with feeder.images(cell, replaced) as images:
            await self._restore_from(images, cell, snapshot, manifest)

    async def _restore_from(self, images: Path, cell: Cell, snapshot: Snapshot, manifest: Manifest) -> None:
        log = self._store.layout.root / f"restore-{snapshot.sequence:06d}.log"
        log.unlink(missing_ok=True)
        terminal = (KEPT_FD, manifest.terminal) if manifest.terminal else None
        argv = restore_command(self._criu, images=images, log=log, stream=manifest.packed, terminal=terminal)
        tasks = Images(snapshot.images, self._criu.pycriu, snapshot.read_image).tasks()
        taken = {number for task in tasks for number in (task.pid, *task.threads)}
        ended = await cell.criu(
            argv,
            limit_s=self._options.restore_timeout,
            stderr=log,
            next_pid=free_range(manifest.ns_last_pid + 1, taken),
            terminal=(self._store.layout.output_log, our_terminal_size()) if terminal else None,
        )
        if ended.problem:  # no snapshot's fault: the next one would fail the same way
            raise EnvironmentUnfitError(
                f"CRIU could not be started: {ended.problem}", tip="`criu-train doctor` tells what this machine lacks"
            )
        text = log.read_text(errors="replace") if log.exists() else ""
        if ended.timed_out or ended.code != 0:
            explanation = explain(text, ended.code, timed_out=ended.timed_out)
            killed = ended.code == -signal.SIGKILL and not ended.timed_out
            raise (CutShortError if killed else RestoreFailedError)(explanation.what, tip=explanation.tip)
        if manifest.cuda:
            await Devices(cell, self._store.layout.root).restored(manifest.memory_bytes)
        log.unlink(missing_ok=True)


def _release_peers(snapshot: Snapshot) -> None:
    """Whoever was kept waiting for this very restore has waited long enough, whatever became of it."""
    if snapshot.manifest is not None and snapshot.manifest.trigger == "preempt":
        cure([], log=read_log(snapshot.path))


def _undo(rollback: Rollback) -> None:
    try:
        rollback.undo()
    except OSError as error:
        raise UndoFailedError(
            f"a restore failed and its rollback can't be undone: {error}",
            tip="see to the cause (a full disk?) and run again: the rest is undone first",
        ) from error


async def _see_alive(cell: Cell) -> None:
    """Raises RestoreFailedError when the restored tree is gone or stands still from the first moment."""
    with contextlib.suppress(TimeoutError):
        ended = await asyncio.wait_for(asyncio.shield(cell.ended), _ALIVE_AFTER_S)
        if ended.code < 0:
            raise (CutShortError if ended.code == -signal.SIGKILL else RestoreFailedError)(
                f"the restored training was killed by signal {-ended.code} at once",
                tip="did the machine, its libraries or its devices change since the snapshot?",
            )
        return
    if cell.root_pid == 0 or processes.start_time(cell.root_pid) is None:
        raise RestoreFailedError("the restored training is not there", tip="see the restore log in the store")
    with contextlib.suppress(psutil.NoSuchProcess):  # its end is told in a moment
        if psutil.Process(cell.root_pid).status() != psutil.STATUS_TRACING_STOP:
            return
        raise RestoreFailedError("the restored training stands still", tip="see the restore log in the store")


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
