"""Giving a snapshot away: as plain images that CRIU and its tools read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from criu_train.archive.checkpointctl import describe, write_archive
from criu_train.archive.exported import FACTS, OURS, STATS, Exported
from criu_train.archive.rebuild import rebuild
from criu_train.archive.stored import StoredPages
from criu_train.errors import StoreError, UsageError
from criu_train.store.digest import digest_bytes, digest_file
from criu_train.store.durable import fsync_tree, make_private_dir, write_atomic
from criu_train.store.guard import check_ours
from criu_train.store.integrity import verify
from criu_train.store.manifest import Manifest, StoredFile
from criu_train.store.snapshot import COMPRESSED_LOG, DUMP_LOG, MANIFEST, MARKER, Snapshot
from criu_train.units import format_size

Progress = Callable[[int, int], None]

_IMAGES = "images/"
_RESERVE = 16 << 20


def export_snapshot(
    snapshot: Snapshot,
    directory: Path,
    *,
    store: str,
    archive: bool = False,
    progress: Progress = lambda done, total: None,
) -> None:
    """Fill ``directory``, new or empty, see ``exported``; ``store`` is the id of the snapshot's store.

    ``archive``: with the tar file that checkpointctl reads, which takes the room of the images once more.
    ``progress`` is told bytes done and bytes in all. Raises UsageError, StoreError; nothing is left then.
    """
    manifest = snapshot.manifest
    if snapshot.status != "complete" or manifest is None:
        raise _unfit(f"{snapshot.status}: {snapshot.reason}")
    if not snapshot.seal.is_plain:
        raise UsageError(
            "a snapshot of an encrypted store can't be exported: nothing in an export is encrypted",
            tip="copy the whole store, it opens elsewhere with the same key",
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is not an empty directory", tip="name a new one")
    if directory.exists():  # what we write there is the memory of the training
        check_ours(directory, "the directory", "name a new one")
    if problems := verify(snapshot, packs=False):
        raise _unfit(problems[0])
    made = not directory.exists()
    try:
        if made:
            make_private_dir(directory)
        _Export(snapshot, manifest, directory, archive=archive, progress=progress).run(store)
    except BaseException as error:
        _clear(directory, made)
        if isinstance(error, OSError):
            raise StoreError(
                f"{directory} can't be filled: {error.strerror or error}", tip="see that there is room, or name another"
            ) from error
        raise


class _Export:
    def __init__(
        self, snapshot: Snapshot, manifest: Manifest, directory: Path, *, archive: bool, progress: Progress
    ) -> None:
        self._snapshot, self._manifest, self._directory = snapshot, manifest, directory
        self._ours = directory / OURS
        self._archive = archive
        self._progress = progress
        self._large = _large_images(snapshot, manifest)
        self._bytes = sum(self._large.values()) + sum(
            one.size for name, one in manifest.files.items() if name.startswith(_IMAGES)
        )
        self._done, self._total = 0, self._bytes * (3 if archive else 2)  # written, read back, written to the archive

    def run(self, store: str) -> None:
        self._check_room()
        self._directory.chmod(0o700)
        make_private_dir(self._ours)
        make_private_dir(self._ours / "files")
        for name in self._manifest.files:
            if name.startswith(_IMAGES):
                self._copy(name, self._directory / name.removeprefix(_IMAGES))
            elif name == "listing.json" or name.startswith("files/"):
                self._copy(name, self._ours / name)
        for name in (DUMP_LOG, COMPRESSED_LOG):
            self._copy(name, self._ours / name)
        self._copy(MANIFEST, self._ours / MANIFEST)
        if self._large:
            done = self._done
            rebuild(self._snapshot.path, self._directory, lambda now, _: self._advance(done + now - self._done))
        images = self._read_back()
        self._copy(_IMAGES + STATS, self._directory / STATS)
        describe(self._snapshot.id, self._manifest, self._ours)
        if self._archive:
            write_archive(self._directory, images, self._ours, self._advance)
        fsync_tree(self._directory)
        manifest = digest_bytes((self._ours / MANIFEST).read_bytes())
        facts = Exported(store, manifest, images).to_json()
        write_atomic(self._ours / FACTS, facts)
        write_atomic(self._ours / MARKER, digest_bytes(facts).encode() + b"\n")

    def _check_room(self) -> None:
        others = sum(one.size for name, one in self._manifest.files.items() if name.startswith("files/"))
        needed = self._bytes * (2 if self._archive else 1) + others + _RESERVE
        free = shutil.disk_usage(self._directory).free
        if needed > free:
            raise StoreError(
                f"not enough room at {self._directory}: {format_size(needed)} needed, {format_size(free)} free",
                tip="name a directory on another disk",
            )

    def _copy(self, name: str, target: Path) -> None:
        """A file of the snapshot, if it is there: ``verify`` has seen to those that have to be."""
        source = self._snapshot.path / name
        if not source.is_file():
            return
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.touch(mode=0o600)
        shutil.copyfile(source, target)
        if name.startswith(_IMAGES) and name in self._manifest.files:
            self._advance(target.stat().st_size)

    def _read_back(self) -> Mapping[str, StoredFile]:
        """Every image as it came out; what the manifest knows has to be what it says."""
        images = {}
        for path in sorted(self._directory.rglob("*")):
            name = str(path.relative_to(self._directory))
            if path.is_file() and not name.startswith(f"{OURS}/"):
                images[name] = StoredFile(path.stat().st_size, digest_file(path, self._advance))
                known = self._manifest.files.get(_IMAGES + name)
                if known not in (None, images[name]):
                    raise _unfit(f"{_IMAGES}{name} has changed")
        return images

    def _advance(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self._total)


def _large_images(snapshot: Snapshot, manifest: Manifest) -> Mapping[str, int]:
    if not manifest.packed:
        return {}
    with closing(StoredPages.open(snapshot.path)) as stored:
        return dict(stored.names)


def _clear(directory: Path, made: bool) -> None:
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if made and directory.is_dir():
        directory.rmdir()


def _unfit(why: str) -> StoreError:
    return StoreError(f"the snapshot can't be exported: {why}", tip="`criu-train snapshot list` shows the others")
