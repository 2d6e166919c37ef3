"""A snapshot in the making.

The order in which ``publish`` writes is what makes the marker true: every byte the manifest covers, then the names
of those files, then the manifest, then the marker, each durable before the next begins. A power cut, a kill or a
full disk at any point leaves a directory without marker, which nobody restores.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import threading
from contextlib import suppress
from dataclasses import fields as fields_of
from pathlib import Path

from criu_train.errors import DumpFailedError
from criu_train.store.blob import parse
from criu_train.store.digest import digest_file, is_digest
from criu_train.store.dump_log import compress_log
from criu_train.store.durable import DISK, Disk, fsync_tree, make_private_dir, open_private, write_atomic
from criu_train.store.layout import created_at_of, sequence_of
from criu_train.store.manifest import Manifest, ManifestFields, StoredFile
from criu_train.store.seal import PLAIN, Seal, place_of
from criu_train.store.snapshot import (
    DUMP_LOG,
    FAILED,
    MANIFEST,
    MARKER,
    NOT_COVERED,
    OWNER,
    PACKS,
    Snapshot,
    read_image,
)
from criu_train.units import utc_now_iso


class Draft:
    """The directory a dump is written into; ends in ``publish`` or ``discard``.

    Its owner is the process that made it: nobody sweeps the draft as long as that process lives.
    """

    def __init__(self, path: Path, run_id: str, trigger: str, disk: Disk = DISK, seal: Seal = PLAIN) -> None:
        """Make the directory at ``path``, whose name is the new id; raises OSError. ``seal``: the store's."""
        self.path = path
        self.id = path.name
        self.sequence = sequence_of(path.name) or 0
        self.run_id = run_id
        self.trigger = trigger
        self.seal = seal
        self._disk = disk
        self._ending = threading.Lock()
        self._given_up = self._complete = False
        make_private_dir(path)
        self._owner = open_private(path / OWNER, os.O_RDWR | os.O_EXCL)
        fcntl.flock(self._owner, fcntl.LOCK_EX)
        make_private_dir(self.images)
        make_private_dir(self.files)

    @property
    def images(self) -> Path:
        """CRIU's images directory."""
        return self.path / "images"

    @property
    def files(self) -> Path:
        """For the blobs of saved files, each named by its BLAKE3 digest."""
        return self.path / "files"

    @property
    def packs(self) -> Path:
        """For the packs of the large images, each named by its BLAKE3 digest; made by whoever packs."""
        return self.path / PACKS

    def read_image(self, name: str) -> bytes:
        """One of the small images, as CRIU wrote it. Raises OSError, SealError."""
        return read_image(self.path, name, self.seal)

    def write(self, name: str, data: bytes) -> None:
        """A file of the snapshot, sealed, durable once this returns. Raises OSError."""
        write_atomic(self.path / name, bytes(self.seal.seal(data, place_of(self.path, name))), disk=self._disk)

    @property
    def dump_log(self) -> Path:
        """CRIU's log."""
        return self.path / DUMP_LOG

    def publish(self, fields: ManifestFields, *, log_ended: bool = False) -> Snapshot:
        """Make everything durable, then the snapshot complete; raises DumpFailedError, after which call ``discard``.

        ``log_ended``: CRIU has come to its end, so that its log can be compressed.
        Takes as long as the disk: call it off the event loop.
        """
        from concurrent.futures import ThreadPoolExecutor  # only those who write wait for it

        try:
            if log_ended:
                compress_log(self.path)
            names = self._tidy()
            with ThreadPoolExecutor(1) as pool:  # the disk writes while the processor reads
                synced = pool.submit(fsync_tree, self.path, disk=self._disk)
                stored = {name: self._stored(name) for name in names}
                synced.result()
            self._disk.fsync(self.path.parent)
            self._disk.reached("images-synced")
            manifest = Manifest(
                **{one.name: getattr(fields, one.name) for one in fields_of(ManifestFields)},
                id=self.id,
                sequence=self.sequence,
                run=self.run_id,
                created_at=created_at_of(self.id),
                trigger=self.trigger,
                stored_bytes=sum(one.size for one in stored.values()),
                added_bytes=sum(one.size for name, one in stored.items() if self._is_new(name)),
                files=stored,
            )
            data = manifest.to_json()
            write_atomic(self.path / MANIFEST, data, disk=self._disk)
            self._disk.reached("manifest-written")
            self._disk.reached("before-marker")
            with self._ending:
                if self._given_up:
                    raise OSError(errno.ECANCELED, "it was given up meanwhile")
                write_atomic(self.path / MARKER, self.seal.vouch(data).encode() + b"\n", disk=self._disk)
                self._complete = True
        except OSError as error:
            raise DumpFailedError(
                f"the snapshot could not be made durable: {error.strerror or error}",
                tip="check the free space and the health of the disk that holds the store",
            ) from error
        self._disk.reached("after-marker")
        with suppress(OSError):  # the snapshot is complete, whatever happens to these files
            if log_ended:
                self.dump_log.unlink(missing_ok=True)
            (self.path / OWNER).unlink()
        self._disown()
        # As it was written: the disk may be away by now, and the snapshot is complete.
        return Snapshot(self.path, self.id, self.sequence, "complete", None, manifest, seal=self.seal)

    def discard(self, reason: str) -> None:
        """Give the draft up: only CRIU's log and the reason stay, until the next prune. Never raises OSError.

        One that has just become complete, in a thread that nobody waits for any more, stays.
        """
        if not self._give_up():
            return
        for entry in self.path.iterdir() if self.path.is_dir() else ():
            with suppress(OSError):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.name not in (DUMP_LOG, OWNER):
                    entry.unlink()
        with suppress(OSError):
            facts = {"reason": reason, "at": utc_now_iso(), "trigger": self.trigger, "run": self.run_id}
            write_atomic(self.path / FAILED, json.dumps(facts).encode() + b"\n", disk=self._disk)
        with suppress(OSError):
            (self.path / OWNER).unlink()
        self._disown()

    def remove(self) -> None:
        """Take the draft away without a trace, where there is nothing to tell; see ``discard``."""
        if not self._give_up():
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self._disown()

    def _give_up(self) -> bool:
        with self._ending:
            self._given_up = True
            return not self._complete

    def _disown(self) -> None:
        if self._owner >= 0:
            os.close(self._owner)
            self._owner = -1

    def _tidy(self) -> list[str]:
        """The files to cover; removes sockets, FIFOs and half packs that served the dump, makes the rest private."""
        names = []
        for parent, directories, files in os.walk(self.path):
            for name in (*directories, *files):
                path = Path(parent, name)
                status = path.lstat()
                if stat.S_ISDIR(status.st_mode):
                    path.chmod(0o700)
                elif (
                    stat.S_ISSOCK(status.st_mode)
                    or stat.S_ISFIFO(status.st_mode)
                    or (path.parent == self.packs and not is_digest(name))
                ):
                    path.unlink()
                elif not stat.S_ISREG(status.st_mode):
                    raise OSError(f"{path} is neither a file nor a directory")
                else:
                    if stat.S_IMODE(status.st_mode) != 0o600 and status.st_nlink == 1:
                        path.chmod(0o600)  # with more links it may be somebody's own file
                    if (relative := str(path.relative_to(self.path))) not in NOT_COVERED:
                        names.append(relative)
        return names

    def _stored(self, name: str) -> StoredFile:
        """Size and digest of a file; the name of a blob or pack is its digest, which need not be found out twice."""
        path = self.path / name
        known = parse(path.name) if path.parent in (self.files, self.packs) else None
        return StoredFile(path.lstat().st_size, known.stored if known else digest_file(path))

    def _is_new(self, name: str) -> bool:
        """Whether a file takes room that nothing took before this snapshot."""
        return (self.path / name).lstat().st_nlink == 1
