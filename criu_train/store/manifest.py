"""The manifest: every fact about a snapshot, and the size and digest of every file in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from criu_train.errors import StoreError
from criu_train.store.environment import Environment

VERSION = 2
READABLE = (1, VERSION)  # 1: the pages lie in images/ as CRIU writes them, and nobody counted what a snapshot added

# Between what a listing tells and the long rest. Valid JSON either way; no line breaks are written but this one.
_CUT = b',\n"cpu":'


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


@dataclass(frozen=True)
class HookFacts:
    """What a restore has to know of the hooks: where they meet, how many restores and rounds there had been.

    ``digests``: of the state, by PID in the cell; of those who stood between two steps.
    """

    directory: str
    generation: int
    round: int
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the supervisor knows about a snapshot, in short."""

    command: tuple[str, ...]
    cwd: str
    criu_version: str
    kernel: str
    boot_id: str
    tasks: int
    root_pid: int  # as the cell numbers it
    ns_last_pid: int
    memory_bytes: int
    frozen_time_us: int | None
    spilled_bytes: int | None = None  # what had to go to the disk while the tree stood still; None: not counted
    stats: Mapping[str, int] = field(default_factory=dict)  # CRIU's own figures about the dump
    step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)  # as the output names them; the epoch is one
    journal: str = ""  # file name below journals/
    journal_offset: int = 0  # where the journal stood at the cut, bytes
    notes: tuple[str, ...] = ()  # warnings: what the snapshot could not hold
    cuda: bool = False  # GPU memory lies in main memory in it
    terminal: str | None = None  # the training's, as CRIU knew it at the dump
    aligned: bool | None = None  # whether everybody stood between two steps; None: no hooks were in use
    parked_us: int | None = None  # how long the first one had stood there before CRIU came
    at_work: bool | None = None  # whether it computed when it was dumped, rather than waited; None: nobody looked


@dataclass(frozen=True, kw_only=True)
class ManifestFields(Facts):
    """What the supervisor knows about a snapshot. ``environment``: None in those of an older criu-train."""

    cpu: Cpu
    external: tuple[ExternalFile, ...] = ()
    environment: Environment | None = None
    hooks: HookFacts | None = None


@dataclass(frozen=True, kw_only=True)
class Summary(Facts):
    """What a listing tells of a snapshot: ``Facts`` and what the store adds to them.

    ``stored_bytes``: all files of the snapshot. ``added_bytes``: those of them that it shares with no earlier one;
    None where nobody counted.
    """

    id: str
    sequence: int
    run: str
    created_at: str
    trigger: str
    stored_bytes: int
    added_bytes: int | None = None
    version: int = VERSION

    @classmethod
    def from_json(cls, data: bytes) -> Summary:
        """Reads no more than the beginning; raises StoreError as ``Manifest.from_json`` does."""
        head, cut, _ = data.partition(_CUT)
        facts = _parse(head + b"}" if cut else data)
        return _make(cls, {name: facts[name] for name in _SUMMARY if name in facts})


@dataclass(frozen=True, kw_only=True)
class Manifest(Summary, ManifestFields):
    """Everything about a snapshot. Fields that are not known here are passed over by readers, as by ``Summary``'s."""

    files: Mapping[str, StoredFile]  # by path within the snapshot

    @property
    def packed(self) -> bool:
        """Whether the pages lie in packs; else in ``images`` as CRIU writes them."""
        return self.version > 1

    def to_json(self) -> bytes:
        """The bytes of ``manifest.json``."""
        short = {name: getattr(self, name) for name in _SUMMARY}
        short |= {"stats": dict(self.stats), "metrics": dict(self.metrics)}
        # Long lists of equal shape are rows rather than objects: a third of the size and of the time to read.
        long: dict[str, Any] = {
            "cpu": asdict(self.cpu),
            "files": {path: list(stored) for path, stored in sorted(self.files.items())},
            "external": [list(one) for one in self.external],
        }
        if self.environment is not None:
            long["environment"] = self.environment.to_json()
        if self.hooks is not None:
            long["hooks"] = asdict(self.hooks)
        head, rest = (json.dumps(part, separators=(",", ":")).encode() for part in (short, long))
        return head[:-1] + b",\n" + rest[1:] + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises StoreError for anything but a manifest of a version known here."""
        facts = _parse(data)
        return _make(cls, {name: facts[name] for name in _ALL if name in facts})


_SUMMARY = tuple(one.name for one in fields(Summary))
_ALL = tuple(one.name for one in fields(Manifest))
_HOOKS = tuple(one.name for one in fields(HookFacts))
_M = TypeVar("_M", bound=Summary)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(data)
        version = facts["version"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _unreadable(error) from error
    if version not in READABLE:
        raise StoreError(
            f"the manifest is of version {version}, this criu-train reads {VERSION}",
            tip="use the criu-train that wrote it",
        )
    return facts


def _make(kind: type[_M], facts: dict[str, Any]) -> _M:
    try:
        facts["command"] = tuple(facts["command"])
        facts["notes"] = tuple(facts["notes"])
        if issubclass(kind, Manifest):
            facts["cpu"] = Cpu(**facts["cpu"] | {"flags": tuple(facts["cpu"]["flags"])})
            facts["external"] = tuple(map(ExternalFile._make, facts["external"]))
            if (environment := facts.get("environment")) is not None:
                facts["environment"] = Environment.from_json(environment)
            if (hooks := facts.get("hooks")) is not None:
                facts["hooks"] = HookFacts(**{name: hooks[name] for name in _HOOKS if name in hooks})
            facts["files"] = {path: StoredFile._make(row) for path, row in facts["files"].items()}
        return kind(**facts)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> StoreError:
    return StoreError(f"the manifest can't be read ({type(error).__name__})", tip="use another snapshot")
