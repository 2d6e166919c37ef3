"""What checkpointctl wants beside the images: it reads checkpoints of containers, as container engines archive them."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from criu_train.archive.exported import STATS
from criu_train.store.manifest import Manifest

ARCHIVE = "checkpoint.tar"
_CONFIG, _SPEC = "config.dump", "spec.dump"
_IMAGES = "checkpoint"


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
            with (images / name).open("rb") as file:
                member = archive.gettarinfo(arcname=f"{_IMAGES}/{name}", fileobj=file)
                archive.addfile(member, _Counted(file, progress))


class _Counted:
    def __init__(self, file: IO[bytes], progress: Callable[[int], None]) -> None:
        self._file, self._progress = file, progress

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._progress(len(data))
        return data
