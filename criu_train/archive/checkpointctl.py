"""What checkpointctl wants beside the images: it reads checkpoints of containers, as container engines archive them."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from criu_train.archive.exported import STATS
from criu_train.store.manifest import Manifest

ARCHIVE = "checkpoint.tar"
_CONFIG, _SPEC = "config.dump", "spec.dump"
_IMAGES = "checkpoint"
_MAGIC_BYTES, _LENGTH = 8, struct.Struct("<I")
_COMPAT_NR_PAGES, _NR_PAGES = 2, 5  # fields of a pagemap entry


def describe(identifier: str, manifest: Manifest, directory: Path) -> None:
    """Write ``config.dump`` and ``spec.dump`` into ``directory``.

    There is no container: the run stands for its name, the working directory for its root filesystem.
    """
    config = {
        "id": identifier,
        "name": manifest.run,
        "rootfsImageName": manifest.cwd,
        "runtime": "criu-train",
        "createdTime": manifest.created_at,
        "checkpointedTime": manifest.created_at,
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": False,
    }
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": list(manifest.command), "cwd": manifest.cwd, "user": {"uid": 0, "gid": 0}},
        "root": {"path": "/"},
        "mounts": [],
        "annotations": {"io.kubernetes.cri.container-name": manifest.run},
    }
    for name, content in ((_CONFIG, config), (_SPEC, spec)):
        with os.fdopen(os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(content, file, indent=2)


def write_archive(images: Path, names: Iterable[str], directory: Path, progress: Callable[[int], None]) -> None:
    """Write the archive into ``directory``, where the descriptions are; ``progress`` is told bytes as they go in."""
    descriptor = os.open(directory / ARCHIVE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out, tarfile.open(fileobj=out, mode="w") as archive:
        for name in (_CONFIG, _SPEC):
            archive.add(directory / name, name)
        if (images / STATS).exists():
            archive.add(images / STATS, STATS)
        folder = tarfile.TarInfo(_IMAGES)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        for name in names:
            if name.startswith("pagemap-"):
                data = with_old_counts((images / name).read_bytes())
                member = tarfile.TarInfo(f"{_IMAGES}/{name}")
                member.size, member.mode = len(data), 0o600
                archive.addfile(member, io.BytesIO(data))
                progress((images / name).stat().st_size)
                continue
            with (images / name).open("rb") as file:
                member = archive.gettarinfo(arcname=f"{_IMAGES}/{name}", fileobj=file)
                archive.addfile(member, _Counted(file, progress))


def with_old_counts(pagemap: bytes) -> bytes:
    """The same image with page counts where CRIU before 4.2 had them too: checkpointctl looks nowhere else.

    Two magic numbers, then entries, each its length and a message: the head, then one for each stretch of pages.
    """
    out, at = [pagemap[:_MAGIC_BYTES]], _MAGIC_BYTES
    while at < len(pagemap):
        (length,) = _LENGTH.unpack_from(pagemap, at)
        entry = pagemap[at + _LENGTH.size : at + _LENGTH.size + length]
        at += _LENGTH.size + length
        count = _varints(entry).get(_NR_PAGES)
        if count is not None and len(out) > 1:
            entry += _varint(_COMPAT_NR_PAGES << 3) + _varint(min(count, 0xFFFFFFFF))  # the last value counts
        out.append(_LENGTH.pack(len(entry)) + entry)
    return b"".join(out)


def _varints(message: bytes) -> dict[int, int]:
    """The fields of a message that has nothing but numbers in it."""
    fields, numbers = {}, _numbers(message)
    for key, value in zip(numbers, numbers, strict=True):
        fields[key >> 3] = value
    return fields


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield number
            number = shift = 0


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _Counted:
    def __init__(self, file: IO[bytes], progress: Callable[[int], None]) -> None:
        self._file, self._progress = file, progress

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._progress(len(data))
        return data
