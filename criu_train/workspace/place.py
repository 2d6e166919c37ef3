"""Is this the place the snapshot knew: processes name their files by absolute paths, which a restore can't change.

Asked before a restore touches anything, as ``environment`` is.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from criu_train.criu.images import Images
from criu_train.errors import StoreBusyError
from criu_train.store.layout import StoreLayout
from criu_train.store.lock import StoreLock
from criu_train.store.manifest import Manifest
from criu_train.workspace.environment import Finding
from criu_train.workspace.listing import Entry, Listing
from criu_train.workspace.replaced import some


def how_to_go_back(new: str, old: str) -> str:
    """How a directory that lies at ``new`` now is had at ``old`` again."""
    new, old = shlex.quote(new), shlex.quote(old)
    return f"mkdir -p {old} && mount --bind {new} {old} && cd {old}"


def names_of_store(store: Path, cwd: str) -> tuple[str, ...]:
    """The store's path, and the one that it has in the working directory where that is mounted in two places."""
    inside = Path(cwd, store.name)
    return (str(store), str(inside)) if inside != store and _is_same(inside, str(store)) else (str(store),)


def other_store(listing: Listing, store: Path) -> Path | None:
    """The store that the snapshot was taken into, None where that is ``store``, by whatever name."""
    if not listing.exclude:
        return None
    old = Path(listing.exclude[0])
    if os.path.realpath(store) == str(old):
        return None
    with contextlib.suppress(OSError):
        if old.samefile(store):
            return None
    return old


def settle_in(listing: Listing, layout: StoreLayout, *, rename: bool) -> tuple[Listing, dict[str, str]]:
    """The listing as this store would have it, and the files that have another name by that: the training's output.

    What lies in a store is no doing of the training, wherever it was when the snapshot was taken. ``rename``: whether
    CRIU can be told other names.
    """
    root, output = os.path.realpath(layout.root), os.path.realpath(layout.output_log)
    name = layout.output_log.name
    names = {old: output for old in listing.include if rename and old != output and Path(old).name == name}
    entries = tuple(replace(one, path=names[one.path]) if one.path in names else one for one in listing.entries)
    include = tuple(names.get(one, one) for one in listing.include)
    exclude = tuple(dict.fromkeys((root, *listing.exclude)))
    return replace(listing, entries=entries, include=include, exclude=exclude), names


def compare_place(manifest: Manifest, listing: Listing, *, store: Path, here: Path) -> Iterator[Finding]:
    """What is to be known before a run of ``store`` goes on where it was, whichever of its snapshots is taken.

    Changes nothing. ``here``: the directory from which a restore is asked for; whoever asks for it in the training's
    own means that one.
    """
    old = other_store(listing, store)
    if old is not None and (holder := _holder(old)):
        yield Finding(
            True,
            f"the training may still run: {holder}, and {manifest.cwd} is where this one would go on, too",
            f"stop it first, or go on from its own store: --store {shlex.quote(str(old))}",
        )
    elif old and (new := _moved_to(manifest.cwd, old, store, listing.entries)) and not _is_same(here, manifest.cwd):
        yield Finding(
            True,
            f"the training works in {manifest.cwd}, which was moved or copied to {new} with this store",
            f"its processes know that path only: `{how_to_go_back(new, manifest.cwd)}`, then the same command there",
        )
    elif not Path(manifest.cwd).is_dir():
        yield Finding(
            False,
            f"the working directory {manifest.cwd} is gone: a restore makes it, with what the training wrote or held",
            "copy its other files from where the training was",
        )


def compare_data(listing: Listing, images: Images) -> Iterator[Finding]:
    """What this very snapshot needs beside itself of the workspace; changes nothing. StoreError for broken images."""
    needed = {file.path for file in images.files() if not file.deleted}
    gone = [entry.path for entry in listing.entries if entry.path in needed and _is_missed(entry)]
    if gone:
        yield Finding(
            True,
            f"{some(gone, 2)} {'are' if len(gone) > 1 else 'is'} missing",
            "it was open and too large to be in the snapshot: copy it from where the training was, to the same path",
        )


def _is_missed(entry: Entry) -> bool:
    unsaved = entry.kind == "file" and entry.parts is None and entry.held_as is None
    return unsaved and not os.path.lexists(entry.path)


def _holder(store: Path) -> str | None:
    """Who holds the lock of a store that need not be there, in words."""
    layout = StoreLayout(store)
    with contextlib.suppress(OSError):
        if layout.lock.exists():
            try:
                StoreLock.acquire(layout).release()
            except StoreBusyError as error:
                return str(error)
    return None


def _moved_to(cwd: str, old: Path, store: Path, entries: Iterable[Entry]) -> str | None:
    """Where the working directory is now, if it went along with the store in it."""
    if not old.is_relative_to(cwd):
        return None
    inside = old.relative_to(cwd).parts
    here = Path(os.path.realpath(store))
    if here.parts[-len(inside) :] != inside:
        return None
    new = Path(*here.parts[: -len(inside)])
    names = (Path(entry.path) for entry in entries if entry.kind == "file")
    own = (path.relative_to(cwd) for path in names if path.is_relative_to(cwd) and not path.is_relative_to(old))
    return str(new) if any(os.path.lexists(new / name) for name in own) else None


def _is_same(one: Path, other: str) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False
