"""The manifest: every fact about a snapshot, and the size and digest of every file in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from criu_train.errors import StoreError

VERSION = 1


@dataclass(frozen=True)
class Cpu:
    """A processor: the kernel's name for the architecture, the model, and what it can do."""

    arch: str
    model: str
    flags: tuple[str, ...]


# Named tuples rather than dataclasses: a store lists thousands of these, and they are three times quicker to make.
class ExternalFile(NamedTuple):
    """A file that the images name and the snapshot does not hold: a program, a library, data that is only read."""

    path: str
    size: int
    mtime_ns: int
    mode: int | None = None  # st_mode
    build: str | None = None  # the ELF build-id, hexadecimal


class StoredFile(NamedTuple):
    """A file in the snapshot; ``digest`` is BLAKE3, hexadecimal."""

    size: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class ManifestFields:
    """What the supervisor knows about a snapshot."""

    command: tuple[str, ...]
    cwd: str
    criu_version: str
    kernel: str
    boot_id: str
    cpu: Cpu
    tasks: int
    root_pid: int  # as the cell numbers it
    ns_last_pid: int
    memory_bytes: int
    frozen_time_us: int | None
    stats: Mapping[str, int] = field(default_factory=dict)  # CRIU's own figures about the dump
    step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    journal: str = ""  # file name below journals/
    journal_offset: int = 0  # where the journal stood at the cut, bytes
    external: tuple[ExternalFile, ...] = ()
    notes: tuple[str, ...] = ()  # warnings: what the snapshot could not hold


@dataclass(frozen=True, kw_only=True)
class Manifest(ManifestFields):
    """``ManifestFields`` and what the store adds."""

    id: str
    sequence: int
    run: str
    created_at: str
    trigger: str
    stored_bytes: int
    files: Mapping[str, StoredFile]  # by path within the snapshot
    version: int = VERSION

    def to_json(self) -> bytes:
        """The bytes of ``manifest.json``."""
        facts = {one.name: getattr(self, one.name) for one in fields(self)}
        facts |= {"cpu": asdict(self.cpu), "stats": dict(self.stats), "metrics": dict(self.metrics)}
        # Long lists of equal shape are rows rather than objects: a third of the size and of the time to read.
        facts["external"] = [list(one) for one in self.external]
        facts["files"] = {path: list(stored) for path, stored in sorted(self.files.items())}
        return json.dumps(facts, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises StoreError for anything but a manifest of a version known here."""
        try:
            facts: dict[str, Any] = json.loads(data)
            version = facts["version"]
            if version != VERSION:
                raise StoreError(
                    f"the manifest is of version {version}, this criu-train reads {VERSION}",
                    tip="use the criu-train that wrote it",
                )
            facts["cpu"] = Cpu(**facts["cpu"] | {"flags": tuple(facts["cpu"]["flags"])})
            facts["command"] = tuple(facts["command"])
            facts["notes"] = tuple(facts["notes"])
            facts["external"] = tuple(map(ExternalFile._make, facts["external"]))
            facts["files"] = {path: StoredFile._make(row) for path, row in facts["files"].items()}
            return cls(**facts)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"the manifest can't be read ({type(error).__name__})", tip="use another snapshot"
            ) from error
