"""What changed from one snapshot to another: told by manifests, listings and CRIU's small images, never by memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from criu_train.criu.images import Images
from criu_train.errors import CriuTrainError, UsageError
from criu_train.store.environment import Environment
from criu_train.store.manifest import Manifest
from criu_train.store.snapshot import Snapshot
from criu_train.workspace.blobs import PART_BYTES, BlobReader
from criu_train.workspace.listing import Entry, Part, listing_of
from criu_train.workspace.survey import is_code

# Files whose bytes are not kept in like pieces are compared byte by byte up to this size.
_READ_BYTES = 64 << 20
# What a manifest tells in one value each, by the name that JSON has for it.
_FACTS = (
    "run", "command", "cwd", "trigger", "step", "memory_bytes", "tasks", "criu_version", "kernel", "boot_id",
)  # fmt: skip

# The groups of differences, in the order in which they are told.
GROUPS = ("metrics", "tasks", "open_files", "libraries", "packages", "data", "files")

Pair = tuple[Any, Any]
Blobs = tuple[BlobReader, BlobReader]  # of the earlier and of the later snapshot


@dataclass(frozen=True)
class Changed:
    """Things by name: those that came, those that went, and those that are another one; each with what is told of it.

    What came and went has one value, the others have the one before and the one after.
    """

    added: Mapping[str, Any]
    removed: Mapping[str, Any]
    changed: Mapping[str, Pair]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @classmethod
    def between(cls, before: Mapping[str, Any], after: Mapping[str, Any]) -> Changed:
        return cls(
            {name: value for name, value in after.items() if name not in before},
            {name: value for name, value in before.items() if name not in after},
            {name: (value, after[name]) for name, value in before.items() if name in after and value != after[name]},
        )


@dataclass(frozen=True)
class Files:
    """Files and directories of the workspace, with sizes in bytes; ``grown`` ones have only been appended to."""

    added: Mapping[str, int]
    removed: Mapping[str, int]
    grown: Mapping[str, Pair]
    rewritten: Mapping[str, Pair]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.grown or self.rewritten)


@dataclass(frozen=True)
class Differences:
    """From ``before`` to ``after``; what comes from images or listings is None where a snapshot can't tell it.

    ``facts``: single values that differ, ``code`` as a CodeVersion. ``tasks``: by PID, the command's short name.
    ``open_files``: open or mapped; ``libraries`` are those of them that belong to programs, packages and the system.
    ``packages``: by name. ``data``: large files that are only read, with size and time.
    ``added_bytes``: what ``after`` added to the disk when it was taken, None: not counted.
    """

    before: Manifest
    after: Manifest
    seconds: float
    facts: Mapping[str, Pair]
    metrics: Changed
    packages: Changed
    data: Changed
    tasks: Changed | None
    open_files: Changed | None
    libraries: Changed | None
    files: Files | None
    added_bytes: int | None

    def __bool__(self) -> bool:
        return bool(self.facts) or any(getattr(self, name) for name in GROUPS)


def differences(before: Snapshot, after: Snapshot, pycriu: Path | None) -> Differences:
    """Raises UsageError for a snapshot without a manifest that can be read. ``pycriu``: as a Criu has it."""
    then, now = manifest_of(before), manifest_of(after)
    old, new = then.environment or Environment(), now.environment or Environment()
    images = [Images(one.images, pycriu, one.read_image) for one in (before, after)]
    pairs = {name: (getattr(then, name), getattr(now, name)) for name in _FACTS}
    pairs["cpu"] = (f"{then.cpu.model} ({then.cpu.arch})", f"{now.cpu.model} ({now.cpu.arch})")
    for name in ("python", "libc"):
        was, is_ = getattr(old, name), getattr(new, name)
        pairs[name] = (was and str(was), is_ and str(is_))
    pairs["code"] = (old.code, new.code)
    pairs["gpu"] = (_gpu(old), _gpu(new))
    if then.environment is None or now.environment is None:  # one of an older criu-train: nothing to compare with
        old = new = Environment()
        pairs = {name: pair for name, pair in pairs.items() if name not in ("python", "libc", "code", "gpu")}
    return Differences(
        before=then,
        after=now,
        seconds=(datetime.fromisoformat(now.created_at) - datetime.fromisoformat(then.created_at)).total_seconds(),
        # As words: of code it may be known in only one of them that it had no changes.
        facts={name: pair for name, pair in pairs.items() if str(pair[0]) != str(pair[1])},
        metrics=Changed.between(then.metrics, now.metrics),
        packages=Changed.between(_packages(old), _packages(new)),
        data=Changed.between(*({row.path: (row.size, row.mtime_ns) for row in one.data} for one in (old, new))),
        tasks=_tasks(images),
        open_files=_open_files(images, code=False),
        libraries=_open_files(images, code=True),
        files=_files(before, after),
        added_bytes=now.added_bytes,
    )


def manifest_of(one: Snapshot) -> Manifest:
    """Raises UsageError for a snapshot without one that can be read."""
    if one.manifest is None:
        tip = "`criu-train snapshot list` shows which are complete"
        raise UsageError(f"{one.id} can't be compared, it is {one.status}: {one.reason}", tip=tip)
    return one.manifest


def _gpu(environment: Environment) -> str | None:
    return ", ".join((*environment.gpu.drivers, *environment.gpu.devices)) or None


def _packages(environment: Environment) -> dict[str, str]:
    """By name; where directories differ about one, all versions."""
    found: dict[str, list[str]] = {}
    for packages in environment.packages.values():
        for name, version in packages.items():
            found.setdefault(name, []).append(version)
    return {name: ", ".join(dict.fromkeys(versions)) for name, versions in sorted(found.items())}


def _tasks(images: Collection[Images]) -> Changed | None:
    try:
        return Changed.between(*({str(task.pid): task.comm for task in one.tasks()} for one in images))
    except CriuTrainError:
        return None


def _open_files(images: Collection[Images], *, code: bool) -> Changed | None:
    """Paths alone: sizes and positions change with every step."""

    def paths(one: Images) -> dict[str, None]:
        files = (file for file in one.files() if not file.deleted)
        return {file.path: None for file in files if (bool(file.build_id) or is_code(file.path)) == code}

    try:
        return Changed.between(*map(paths, images))
    except CriuTrainError:
        return None


def _files(before: Snapshot, after: Snapshot) -> Files | None:
    try:
        old, new = ({e.path: e for e in listing_of(one).entries} for one in (before, after))
    except CriuTrainError:
        return None
    # What only one of them knows as a bystander is others' doing, or was not looked at by the other.
    if before.path == after.path:  # though nobody has the bytes of a memory map that was not saved
        return Files({}, {}, {}, {})
    blobs = (BlobReader(before.files, before.seal), BlobReader(after.files, after.seal))
    added = {path: entry.size for path, entry in new.items() if path not in old and _ours(entry)}
    removed = {path: entry.size for path, entry in old.items() if path not in new and _ours(entry)}
    grown: dict[str, Pair] = {}
    rewritten: dict[str, Pair] = {}
    for path in sorted(old.keys() & new.keys()):
        was, is_ = old[path], new[path]
        if (_ours(was) or _ours(is_)) and not _equal(was, is_, blobs):
            kind = grown if _has_grown(was, is_, blobs) else rewritten
            kind[path] = (was.size, is_.size)
    return Files(added, removed, grown, rewritten)


def _ours(entry: Entry) -> bool:
    return entry.role != "bystander" and entry.kind in ("file", "dir", "symlink")


def _equal(was: Entry, is_: Entry, blobs: Blobs) -> bool:
    if was.kind != is_.kind:
        return False
    if was.kind != "file":
        return was.target == is_.target
    if was.size != is_.size:
        return False
    if was.parts is not None and is_.parts is not None:  # times tell nothing of a memory map that was written to
        return was.parts == is_.parts or _begins_with(was.parts, is_.parts, blobs)
    return (was.dev, was.ino, was.mtime_ns) == (is_.dev, is_.ino, is_.mtime_ns) and not was.mapped and not is_.mapped


def _has_grown(was: Entry, is_: Entry, blobs: Blobs) -> bool:
    if was.kind != "file" or is_.kind != "file" or was.size >= is_.size or was.parts is None or is_.parts is None:
        return False
    return _begins_with(was.parts, is_.parts, blobs)


def _begins_with(was: Sequence[Part], is_: Sequence[Part], blobs: Blobs) -> bool:
    """Whether the later parts begin with the bytes of the earlier ones, however they are cut. False: not known, too."""
    same = 0
    for one, other in zip(was, is_, strict=False):
        if one != other:
            break
        same += 1
    old, new = was[same:], is_[same:]
    size = sum(part.size for part in old)
    if size == 0:
        return True
    if not new or size > _READ_BYTES or (old[0].size == new[0].size):  # that one has other bytes
        return False
    try:
        return _read(old, blobs[0], size) == _read(new, blobs[1], size)
    except (CriuTrainError, OSError):
        return False


def _read(parts: Iterable[Part], reader: BlobReader, size: int) -> bytes:
    buffer, found = bytearray(PART_BYTES), bytearray()
    for part in parts:
        if len(found) >= size:
            break
        found += reader.read(part, memoryview(buffer))
    return bytes(found[:size])
