"""A snapshot outside of a store: plain images, and in one subdirectory what it takes to take it in again.

DIR/*.img          every image as plain CRIU writes it, for `criu restore -D DIR` and `crit`
DIR/criu-train/    manifest.json, listing.json, files/, export.json, COMPLETE (the digest of export.json)
                   config.dump, spec.dump and, if asked for, checkpoint.tar: what checkpointctl reads
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from criu_train.errors import StoreError
from criu_train.store.digest import digest_bytes
from criu_train.store.manifest import Manifest, StoredFile
from criu_train.store.shape import misfit
from criu_train.store.snapshot import MANIFEST, MARKER

OURS = "criu-train"
FACTS = "export.json"
STATS = "stats-dump"  # written by CRIU after everything else and therefore in no manifest; its tools show it
_VERSION = 1


@dataclass(frozen=True)
class Exported:
    """``store``: the id of the store it comes from. ``images``: all of them by name, the large ones too."""

    store: str
    manifest: str  # digest of manifest.json
    images: Mapping[str, StoredFile]
    version: int = _VERSION

    def to_json(self) -> bytes:
        """The bytes of ``export.json``."""
        return json.dumps(asdict(self) | {"images": self.images}, indent=1).encode() + b"\n"


def read_export(directory: Path) -> tuple[Exported, Manifest]:
    """What was exported there; raises StoreError where that is nothing whole."""
    ours = directory / OURS
    try:
        data, seal = (ours / FACTS).read_bytes(), (ours / MARKER).read_text()
        manifest = (ours / MANIFEST).read_bytes()
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{directory} holds no exported snapshot", tip="name a directory that `criu-train snapshot export` filled"
        ) from error
    if seal.strip() != digest_bytes(data):
        raise damaged(f"{OURS}/{FACTS} has changed")
    exported = _parse(data)
    if exported.manifest != digest_bytes(manifest):
        raise damaged(f"{OURS}/{MANIFEST} has changed")
    told = Manifest.from_json(manifest)
    if wrong := misfit(told):
        raise damaged(f"{OURS}/{MANIFEST} can't be read ({wrong})")
    return exported, told


def _parse(data: bytes) -> Exported:
    try:
        facts: dict[str, Any] = json.loads(data)
        if facts["version"] != _VERSION:
            raise StoreError(
                f"the export is of version {facts['version']}, this criu-train reads {_VERSION}",
                tip="use the criu-train that wrote it",
            )
        images = {name: StoredFile._make(row) for name, row in facts["images"].items()}
        exported = Exported(**facts | {"images": images})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"{OURS}/{FACTS} can't be read ({type(error).__name__})") from error
    if wrong := misfit(exported):
        raise damaged(f"{OURS}/{FACTS} can't be read ({wrong})")
    return exported


def damaged(what: str) -> StoreError:
    """An export that can't be taken in."""
    return StoreError(f"the exported snapshot is damaged: {what}", tip="export it again")
