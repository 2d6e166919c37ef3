"""Where a restore gets its images from: the archive, which checks them on the way, or the files of an older form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from criu_train.archive.archivist import Archivist
from criu_train.cell.cell import Cell
from criu_train.errors import CriuTrainError, RestoreFailedError
from criu_train.store.manifest import Manifest
from criu_train.store.snapshot import INDEX, Snapshot
from criu_train.supervisor.keeper import Keeper

CHECK_THE_DISK = "check the disk; `criu-train snapshot verify --all`"


class ArchiveLostError(CriuTrainError):
    """The process that hands images out can't be started, or died: no snapshot's fault."""


class Feeder:
    """For one try to restore one snapshot."""

    def __init__(self, keeper: Keeper, snapshot: Snapshot, manifest: Manifest) -> None:
        self._keeper = keeper
        self._snapshot = snapshot
        self._digest = manifest.files[INDEX].digest if manifest.packed else None

    @property
    def streams(self) -> bool:
        """Whether CRIU is to ask for the images rather than to read files."""
        return self._digest is not None

    async def check(self) -> None:
        """Whatever is not checked on the way. Raises RestoreFailedError, ArchiveLostError."""
        if self._digest is None:
            return
        archivist = await self._archivist()
        try:
            await archivist.check(self._snapshot.path, self._digest)
        except CriuTrainError as error:
            raise _lost(error) if not archivist.alive else error from error

    @asynccontextmanager
    async def images(self, cell: Cell, replaced: Mapping[str, bytes]) -> AsyncIterator[Path]:
        """The images directory for the restore into ``cell``, which is killed when anything goes wrong.

        ``replaced``: small images that CRIU gets instead of those in the snapshot; where it reads files, it does not.
        Raises RestoreFailedError for bytes that are not what they were, ArchiveLostError.
        """
        if self._digest is None:
            yield self._snapshot.images
            return
        archivist = await self._archivist()
        damage: list[str] = []

        def damaged(problem: str) -> None:
            damage.append(problem)
            cell.kill_now()  # CRIU waits for bytes that will not come

        try:
            yield await archivist.serve(
                self._snapshot.path, damaged, index_digest=self._digest, on_loss=cell.kill_now, replaced=replaced
            )
            await archivist.served()
        except BaseException as error:
            # Before the pipes end: that would be taken for the end of a deleted file.
            await cell.kill()
            if damage:
                raise RestoreFailedError(f"corrupt: {damage[0]}", tip=CHECK_THE_DISK) from error
            if isinstance(error, Exception) and not archivist.alive:
                raise _lost(error) from error
            raise
        finally:
            await archivist.end_serving()

    async def _archivist(self) -> Archivist:
        try:
            return await self._keeper.archivist()
        except (CriuTrainError, OSError) as error:
            raise _lost(error) from error


def _lost(error: Exception) -> ArchiveLostError:
    return ArchiveLostError(
        f"the process that hands out the images of snapshots is not there: {error}",
        tip="is memory short, or /run full? see dmesg and run again: no snapshot is harmed",
    )
