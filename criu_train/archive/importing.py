"""Taking an exported snapshot in again, as a new snapshot of the same run: checked first, then taken."""

from __future__ import annotations

import json
import mmap
import shutil
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from pathlib import Path

from criu_train.archive.captured import PAGE, Captured, CapturedImage, Extent, is_large
from criu_train.archive.exported import OURS, STATS, Exported, damaged, read_export
from criu_train.archive.packing import pack
from criu_train.archive.trust import check_trust
from criu_train.errors import CriuTrainError, StoreError
from criu_train.store.digest import digest_file
from criu_train.store.draft import Draft
from criu_train.store.manifest import Manifest, ManifestFields, StoredFile
from criu_train.store.snapshot import COMPRESSED_LOG, DUMP_LOG, Snapshot
from criu_train.store.store import Store

Progress = Callable[[int, int], None]

_LEVEL = 3  # of zstd


@dataclass(frozen=True)
class Checked:
    """A directory in which every byte is as ``export_snapshot`` wrote it."""

    directory: Path
    exported: Exported
    manifest: Manifest


def check_export(directory: Path, progress: Progress = lambda done, total: None) -> Checked:
    """Look through a directory without writing anything; ``progress`` is told bytes checked and bytes in all.

    Raises StoreError where it is foreign, damaged, or open to others: a restore runs the code that is in it.
    """
    check_trust(directory)
    exported, manifest = read_export(directory)
    _check_bytes(directory, exported, manifest, progress)
    _check_listing(directory / OURS / "listing.json")
    return Checked(directory, exported, manifest)


def import_snapshot(checked: Checked, store: Store) -> Snapshot:
    """A complete snapshot of ``store``, with the highest number of its run; its run becomes the store's if it has none.

    Raises StoreError; nothing is left then, unless nothing but the run could not be noted.
    """
    directory, exported, manifest = checked.directory, checked.exported, checked.manifest
    if not store.seal.is_plain:
        raise StoreError(
            "an export can't be taken into an encrypted store",
            tip="name a store without a key, or a new one, by --store",
        )
    try:
        draft = store.new_draft(manifest.run, manifest.trigger)
    except OSError as error:
        raise _full(error) from error
    try:
        _fill(draft, directory, exported, manifest, store)
        snapshot = draft.publish(_fields(manifest, exported, store), log_ended=True)
        store.resume_run(manifest.run, manifest.command, manifest.cwd, if_none=True)
        return snapshot
    except BaseException as error:
        draft.remove()
        if isinstance(error, OSError):
            raise _full(error) from error
        if isinstance(error, CriuTrainError):
            raise StoreError(str(error), tip=error.tip) from error
        raise


class PlainFiles:
    """Files as a capture's memory, mapped one behind the other; close it when nothing refers to it any more."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises OSError."""
        self.images: list[CapturedImage] = []
        self._starts: list[int] = []
        self._maps: list[mmap.mmap] = []
        start = 0
        with ExitStack() as stack:
            stack.callback(self.close)
            for path in paths:
                size = path.stat().st_size
                extents: tuple[Extent, ...] = ()
                if size:
                    with path.open("rb") as file:
                        self._maps.append(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
                    self._starts.append(start)
                    extents = (Extent(start, size),)
                self.images.append(CapturedImage(path.name, size, extents))
                start += -(-size // PAGE) * PAGE
            stack.pop_all()

    def view(self, extent: Extent) -> memoryview:
        """The bytes of an extent, without what would fill the last page up."""
        which = bisect_right(self._starts, extent.offset) - 1
        offset = extent.offset - self._starts[which]
        return memoryview(self._maps[which])[offset : offset + extent.length]

    def close(self) -> None:
        """Let the files go."""
        for one in self._maps:
            with suppress(BufferError):  # somebody still looks at it, and lets it go with its last view
                one.close()


class Steady:
    """There is no training to be spared."""

    def level(self, raw_left: int, done: float) -> int | None:
        return _LEVEL

    def in_thread(self) -> None:
        pass


def _fill(draft: Draft, directory: Path, exported: Exported, manifest: Manifest, store: Store) -> None:
    large = [directory / name for name in exported.images if is_large(name)]
    for name in exported.images:
        if not is_large(name):
            _copy(directory / name, draft.images / name)
    for name in _kept(manifest):
        _copy(directory / OURS / name, draft.path / name)
    for source, target in (
        (directory / OURS / DUMP_LOG, draft.path / DUMP_LOG),
        (directory / OURS / COMPRESSED_LOG, draft.path / COMPRESSED_LOG),
        (directory / STATS, draft.images / STATS),
    ):
        if source.is_file():  # of use to people only, and covered by no checksum
            _copy(source, target)
    with closing(PlainFiles(large)) as memory:
        pack(Captured(tuple(memory.images), {}, memory), draft.path, store.earlier(), pace=Steady())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _fields(manifest: Manifest, exported: Exported, store: Store) -> ManifestFields:
    """The same facts. Journals of another store tell nothing here: only those of cells to come count."""
    fields = ManifestFields(**{one.name: getattr(manifest, one.name) for one in fields_of(ManifestFields)})
    if exported.store == store.id:
        return fields
    return replace(fields, journal=store.next_journal().name, journal_offset=0)


def _kept(manifest: Manifest) -> dict[str, StoredFile]:
    """What lies in our subdirectory as it lay in the snapshot."""
    return {name: one for name, one in manifest.files.items() if name == "listing.json" or name.startswith("files/")}


def _check_bytes(directory: Path, exported: Exported, manifest: Manifest, progress: Progress) -> None:
    wanted = dict(exported.images) | {f"{OURS}/{name}": one for name, one in _kept(manifest).items()}
    total, done = sum(one.size for one in wanted.values()), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for name, one in wanted.items():
        path = directory / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise damaged(f"{name} leads elsewhere")
        try:
            if path.lstat().st_size != one.size or digest_file(path, advance) != one.digest:
                raise damaged(f"{name} has changed")
        except FileNotFoundError as error:
            raise damaged(f"{name} is missing") from error
        except OSError as error:
            raise damaged(f"{name} can't be read: {error.strerror}") from error
        except ValueError as error:  # no name that a file could have
            raise damaged(f"{name!r} is missing") from error


def _check_listing(path: Path) -> None:
    """No more than that it is an object with lists of objects; what these mean is known to who restores."""
    try:
        told = json.loads(path.read_bytes())
        fit = all(isinstance(entry, dict) for name in ("entries", "remaps") for entry in told.get(name, ()))
    except FileNotFoundError:
        return  # of a snapshot without files
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"{OURS}/{path.name} can't be read ({type(error).__name__})") from error
    if not fit:
        raise damaged(f"{OURS}/{path.name} can't be read")


def _full(error: OSError) -> StoreError:
    return StoreError(
        f"the snapshot can't be taken in: {error.strerror or error}", tip="see that the store's disk has room and works"
    )
