"""What the workspace looked like at the cut: one entry a path, in a form that goes to ``listing.json`` and back."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from criu_train.errors import StoreError
from criu_train.store.durable import write_atomic
from criu_train.store.seal import PLAIN, Seal, read_sealed
from criu_train.store.snapshot import Snapshot

VERSION = 1
LISTING = "listing.json"

Kind = Literal["file", "dir", "symlink", "fifo", "socket", "other"]
Role = Literal["workspace", "bystander", "volatile"]

_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a file: ``size`` bytes, kept in the blob named ``digest`` (BLAKE3, hex)."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One path at the cut. Times in nanoseconds, sizes in bytes.

    ``parts`` in order make up the file's bytes; None where they were not saved. ``target`` is a symlink's.
    ``held``: the tree had it open, mapped or as a working directory, so CRIU needs it as it was.
    ``mapped``: shared and writable, so its bytes may change without its times. ``made``: a directory that the tree
    created. ``held_as``: the name below ``held`` in the snapshot that another link of an unsaved file has.
    """

    path: str
    kind: Kind
    role: Role
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    dev: int
    ino: int
    parts: tuple[Part, ...] | None = None
    target: str | None = None
    held: bool = False
    mapped: bool = False
    made: bool = False
    held_as: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The workspace at the cut.

    ``remaps``: names that CRIU gave to deleted files that still had another link; they must be there for its restore.
    ``complete`` is False when the roots held more than is listed. ``unsaved``: files larger than the limit.
    ``exclude`` and ``include``: as in the policy.
    """

    cut_ns: int
    boot_id: str
    roots: tuple[str, ...]
    entries: tuple[Entry, ...]
    remaps: tuple[Entry, ...] = ()
    unsaved: tuple[str, ...] = ()
    complete: bool = True
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    version: int = VERSION


def kind_of(mode: int) -> Kind:
    """The kind that ``st_mode`` tells; "other" is a device."""
    return _KINDS.get(stat.S_IFMT(mode), "other")


def identity(info: os.stat_result) -> tuple[int, int, int, int, int]:
    """Equal as long as nobody touched the file; see ``SETTLED_NS`` for what the clock's grain hides."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


# A change within one tick of the kernel's clock (10 ms at worst) leaves the same time stamp.
SETTLED_NS = 20_000_000

_OPTIONAL = ("target", "held", "mapped", "made", "held_as")
_SPARED = {field.name: field.default for field in fields(Entry) if field.name in _OPTIONAL}
_ALWAYS = [field.name for field in fields(Entry) if field.name not in (*_SPARED, "parts")]


def listing_to_json(listing: Listing) -> bytes:
    """The bytes of ``listing.json``."""
    content = {name: getattr(listing, name) for name in Listing.__slots__ if name not in ("entries", "remaps")}
    content["entries"] = [_entry_to_json(entry) for entry in listing.entries]
    content["remaps"] = [_entry_to_json(entry) for entry in listing.remaps]
    return json.dumps(content, separators=(",", ":")).encode()


def write_listing(listing: Listing, path: Path) -> None:
    """Durably, owner only."""
    write_atomic(path, listing_to_json(listing))


def listing_of(snapshot: Snapshot) -> Listing:
    """StoreError when it is missing, garbled or of another version."""
    return read_listing(snapshot.path / LISTING, snapshot.seal)


def read_listing(path: Path, seal: Seal = PLAIN) -> Listing:
    """As ``listing_of``."""
    try:
        content: dict[str, Any] = json.loads(read_sealed(path.parent, path.name, seal))
        if content["version"] != VERSION:
            raise StoreError(
                f"{path} has version {content['version']}, this criu-train reads {VERSION}",
                tip="restore it with the criu-train that wrote it",
            )
        for name in ("entries", "remaps"):
            content[name] = tuple(_entry_from_json(entry) for entry in content[name])
        for name in ("roots", "unsaved", "exclude", "include"):
            content[name] = tuple(content[name])
        return Listing(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} can't be read: {error}", tip="an older snapshot is used instead") from error


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    content = {name: getattr(entry, name) for name in _ALWAYS}
    content |= {name: value for name, default in _SPARED.items() if (value := getattr(entry, name)) != default}
    content["parts"] = None if entry.parts is None else [[part.digest, part.size] for part in entry.parts]
    return content


def _entry_from_json(content: Mapping[str, Any]) -> Entry:
    parts = content.get("parts")
    if "/" in (content.get("held_as") or ""):
        raise ValueError("the name of a held file leads elsewhere")
    return Entry(**{**content, "parts": None if parts is None else tuple(Part(*part) for part in parts)})
