"""Reading every byte of a snapshot back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from criu_train.store.digest import digest_file
from criu_train.store.manifest import Manifest, StoredFile
from criu_train.store.snapshot import NOT_COVERED, PACKS, Snapshot, read_snapshot, size_problems


def verify(
    snapshot: Snapshot, progress: Callable[[int, int], None] = lambda done, total: None, *, packs: bool = True
) -> list[str]:
    """What is wrong with a snapshot, a line each; empty when nothing is. Never raises.

    ``progress`` is told bytes read and bytes in all. Sizes are checked before bytes: CRIU loops for ever on images
    that were truncated, so with any size wrong nothing else counts. ``packs``: False leaves the bytes in the packs,
    not their sizes, to a restore that checks them on their way.
    """
    now = read_snapshot(snapshot.path, seal=snapshot.seal)
    if now.manifest is None:
        return [now.reason or "the manifest can't be read"]
    wrong = list(size_problems(now.path, now.manifest))
    if not wrong and now.reason:
        return [now.reason]
    return [
        *wrong,
        *_unexpected(now.path, now.manifest),
        *(_changed(now.path, _files(now.manifest, packs=packs), progress) if not wrong else ()),
    ]


def _unexpected(path: Path, manifest: Manifest) -> list[str]:
    """Files that the manifest does not know; CRIU might read them."""
    found = []
    for parent, directories, names in os.walk(path):
        links = [name for name in directories if Path(parent, name).is_symlink()]
        for name in (*names, *links):
            relative = str(Path(parent, name).relative_to(path))
            if relative not in manifest.files and relative not in NOT_COVERED:
                found.append(f"{relative} does not belong to the snapshot")
    return sorted(found)


def _files(manifest: Manifest, *, packs: bool) -> Mapping[str, StoredFile]:
    return {name: stored for name, stored in manifest.files.items() if packs or not name.startswith(f"{PACKS}/")}


def _changed(path: Path, files: Mapping[str, StoredFile], progress: Callable[[int, int], None]) -> list[str]:
    total = sum(stored.size for stored in files.values())
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    problems = []
    for name, stored in files.items():
        try:
            if digest_file(path / name, advance) != stored.digest:
                problems.append(f"{name} has changed: its checksum is not the one in the manifest")
        except OSError as error:
            problems.append(f"{name} can't be read: {error.strerror}")
    return problems
