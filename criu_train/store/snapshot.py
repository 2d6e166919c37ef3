"""One snapshot as it lies on the disk, and whether it looks whole."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from typing import Literal, TypeVar

from criu_train.errors import StoreError
from criu_train.store.guard import distrust
from criu_train.store.layout import created_at_of, sequence_of
from criu_train.store.manifest import Manifest, Summary
from criu_train.store.seal import PLAIN, Seal, read_sealed

MANIFEST = "manifest.json"
MARKER = "COMPLETE"
OWNER = ".owner"  # locked as long as the process that writes the draft lives
FAILED = "failed.json"  # why a draft was given up
DUMP_LOG = "dump.log"  # of drafts, failed ones too
COMPRESSED_LOG = "dump.log.zst"  # of complete snapshots
PACKS = "packs"
INDEX = "pages.index"  # how the large images are put together from the packs
# CRIU writes its figures after everything else, when a snapshot taken on the way out is already complete.
_CRIU_STATS = ("images/stats-dump", "images/stats-restore")
# What the manifest does not cover: itself, what comes after it, and what nothing is restored from.
NOT_COVERED = frozenset(
    {MANIFEST, MARKER, OWNER, FAILED, DUMP_LOG, COMPRESSED_LOG, f".{MANIFEST}.tmp", f".{MARKER}.tmp", *_CRIU_STATS}
)

Status = Literal["complete", "incomplete", "corrupt"]


# Of so many of the newest snapshots a listing checks the sizes of all files; a run rarely keeps more than a few.
_SIZED_IN_LISTINGS = 20

_M = TypeVar("_M", bound=Summary)
_L = TypeVar("_L", bound="Listed")


@dataclass(frozen=True)
class Listed:
    """A snapshot as a listing tells of it.

    ``reason`` tells why the status is not ``complete``; ``proven`` whether a trial restore worked, if there was one.
    ``manifest`` is there when it could be read, also of some that are corrupt.
    """

    path: Path
    id: str
    sequence: int
    status: Status
    reason: str | None
    manifest: Summary | None
    abandoned: bool = False
    proven: bool | None = None

    @property
    def created_at(self) -> str:
        """ISO 8601, UTC."""
        return created_at_of(self.id)


@dataclass(frozen=True)
class Snapshot(Listed):
    """A snapshot with its whole manifest, and the sizes of all its files checked. ``seal``: its store's."""

    manifest: Manifest | None
    seal: Seal = PLAIN

    @property
    def images(self) -> Path:
        """CRIU's images directory."""
        return self.path / "images"

    def read(self, name: str) -> bytes:
        """A file as it was before it was sealed. Raises OSError, SealError."""
        return read_sealed(self.path, name, self.seal)

    def read_image(self, name: str) -> bytes:
        """One of the small images, likewise."""
        return read_image(self.path, name, self.seal)

    @property
    def files(self) -> Path:
        """The blobs of saved files."""
        return self.path / "files"

    @property
    def packs(self) -> Path:
        """The packs that the large images are put together from."""
        return self.path / PACKS


def read_snapshot(path: Path, *, abandoned: bool = False, proven: bool | None = None, seal: Seal = PLAIN) -> Snapshot:
    """What can be told about the snapshot at ``path`` without reading its images; never raises.

    Complete means: the marker fits the manifest, and every file is there with its size.
    """
    status, reason, manifest = _look(path, Manifest.from_json, seal)
    if manifest is not None and (problem := next(size_problems(path, manifest), None)):
        status, reason = "corrupt", problem
    return Snapshot(path, path.name, sequence_of(path.name) or 0, status, reason, manifest, abandoned, proven, seal)


def read_image(snapshot: Path, name: str, seal: Seal) -> bytes:
    """One of the small images as CRIU wrote it; its figures are never sealed. Raises OSError, SealError."""
    path = f"images/{name}"
    return read_sealed(snapshot, path, PLAIN if path in _CRIU_STATS else seal)


def list_snapshot(path: Path, *, abandoned: bool = False, proven: bool | None = None, seal: Seal = PLAIN) -> Listed:
    """As ``read_snapshot``, quicker: complete means no more than that the marker fits the manifest."""
    status, reason, summary = _look(path, Summary.from_json, seal)
    return Listed(path, path.name, sequence_of(path.name) or 0, status, reason, summary, abandoned, proven)


def read_snapshots(
    paths: Sequence[Path], *, abandoned: Container[str], proven: Mapping[str, bool], seal: Seal = PLAIN
) -> list[Snapshot]:
    """``read_snapshot`` of each, oldest first by sequence number; the marks are by id."""
    with _no_collector():
        return _still_there(
            read_snapshot(one, abandoned=one.name in abandoned, proven=proven.get(one.name), seal=seal)
            for one in by_sequence(paths)
        )


def list_snapshots(
    paths: Sequence[Path], *, abandoned: Container[str], proven: Mapping[str, bool], seal: Seal = PLAIN
) -> list[Listed]:
    """``read_snapshot`` of the newest twenty, ``list_snapshot`` of those before; oldest first."""
    with _no_collector():
        ordered = by_sequence(paths)
        older = len(ordered) - _SIZED_IN_LISTINGS
        return _still_there(
            (list_snapshot if at < older else read_snapshot)(
                one, abandoned=one.name in abandoned, proven=proven.get(one.name), seal=seal
            )
            for at, one in enumerate(ordered)
        )


def _still_there(found: Iterable[_L]) -> list[_L]:
    """Without what somebody took away while it was looked at: that is not damaged, but gone."""
    return [one for one in found if one.status == "complete" or os.path.lexists(one.path)]


def by_sequence(paths: Sequence[Path]) -> list[Path]:
    """The oldest first."""
    return sorted(paths, key=lambda path: sequence_of(path.name) or 0)


@contextmanager
def _no_collector() -> Iterator[None]:
    """The collector would look through everything read so far again and again: half of the time with many snapshots."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class _NotWholeError(Exception):
    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status: Status = status


def _look(path: Path, parse: Callable[[bytes], _M], seal: Seal) -> tuple[Status, str | None, _M | None]:
    """Status, the reason for it, and the manifest as ``parse`` makes it of its bytes."""
    try:
        return "complete", None, _read_manifest(path, parse, seal)
    except _NotWholeError as error:
        return error.status, str(error), None
    except StoreError as error:
        return "corrupt", str(error), None
    except OSError as error:
        return "corrupt", f"can't be read: {error.strerror}", None


def _read_manifest(path: Path, parse: Callable[[bytes], _M], seal: Seal) -> _M:
    """The manifest, once the marker vouches for it; raises _NotWholeError, StoreError, OSError."""
    if reason := distrust(path.lstat()):
        raise _NotWholeError("corrupt", f"the snapshot {reason}")
    try:
        marker = _read(f"{path}/{MARKER}")
    except FileNotFoundError:
        why = _why_incomplete(path)
        if not os.path.lexists(f"{path}/{MARKER}"):
            raise _NotWholeError("incomplete", why) from None
        marker = _read(f"{path}/{MARKER}")  # it was completed meanwhile
    try:
        data = _read(f"{path}/{MANIFEST}")
    except FileNotFoundError:
        raise _NotWholeError("corrupt", f"{MANIFEST} is missing") from None
    if not compare_digest(marker, seal.vouch(data).encode() + b"\n"):
        why = "" if seal.is_plain else ": not made with this key, or changed since"
        raise _NotWholeError("corrupt", f"{MANIFEST} does not match {MARKER}{why}")
    manifest = parse(data)
    if manifest.id != path.name:
        raise _NotWholeError("corrupt", f"it is a copy of {manifest.id}")
    return manifest


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - twice as quick where there are thousands
        return file.readall()


def size_problems(path: Path, manifest: Manifest) -> Iterator[str]:
    """A line for each file of the manifest that is missing, no file, not of its size, or elsewhere; reads no bytes."""
    base = f"{path}/"
    for name, stored in manifest.files.items():
        if name.startswith("/") or "//" in name or (".." in name and ".." in name.split("/")):
            yield f"{name} leads out of the snapshot"
            continue
        try:
            status = os.lstat(base + name)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            yield f"{name} is missing" if missing else f"{name} can't be read: {error.strerror}"
            continue
        if not stat.S_ISREG(status.st_mode):
            yield f"{name} is no regular file"
        elif status.st_size != stored.size:
            yield f"{name} has {status.st_size} bytes instead of {stored.size}"


def is_live(path: Path) -> bool:
    """Whether a living process is writing the draft at ``path``."""
    try:
        descriptor = os.open(path / OWNER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _why_incomplete(path: Path) -> str:
    if is_live(path):
        return "it is being written now"
    try:
        return str(json.loads((path / FAILED).read_bytes())["reason"])
    except (OSError, ValueError, LookupError, TypeError):
        return "its dump was cut off"
