"""What the tree did to files, and the bytes to undo what it does after the cut.

``precopy`` while the tree runs does nearly all of the work; ``cut`` while it is frozen looks at everything again and
copies only what changed in between; ``finish`` when it runs again. What a dump that fails leaves behind does no harm:
whatever can't be linked any more is saved again.

Guarantee: the listing is the workspace exactly as of ``cut``, or ``finish`` raises. Limits: files larger than the limit
are named in ``unsaved``; of bystanders beyond their limits only size and times are kept; extended attributes are not
kept; files that the tree changes outside of the roots for the first time after the cut are not known before.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from criu_train.errors import DumpFailedError
from criu_train.workspace.blobs import BlobWriter, open_to_read
from criu_train.workspace.catalog import Catalog, Node
from criu_train.workspace.journal import boot_id
from criu_train.workspace.listing import SETTLED_NS, Entry, Listing, Part, identity, kind_of
from criu_train.workspace.opened import Opened, look
from criu_train.workspace.policy import WorkspacePolicy
from criu_train.workspace.reflink import clone

__all__ = ["Tracker", "WorkspacePolicy"]

# Closed files larger than this are read after the cut, when the tree runs, from a descriptor taken at the cut.
_LATER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class _Saved:
    """Bytes that lie in a blob directory, and what the file looked like before they were read."""

    identity: tuple[int, int, int, int, int]
    parts: tuple[Part, ...]
    settled: bool  # a later change can't have left the same times


@dataclass(frozen=True, slots=True)
class _Later:
    """A file to be read after the cut. ``fixed``: a clone that nobody can change."""

    fd: int
    fixed: bool


class Tracker:
    """Saves the workspace of one cell, dump after dump. One call at a time.

    ``listing``, ``blobs``: of the snapshot that this cell was restored from.
    """

    def __init__(
        self, policy: WorkspacePolicy, listing: Listing | None, journal: Path, *, blobs: Path | None = None
    ) -> None:
        self.journal = journal
        self._policy = policy = policy.resolved()
        self._catalog = Catalog(policy, journal, listing)
        self._sources = [blobs] if blobs is not None else []
        self._saved = _saved_by(listing) if listing is not None else {}
        self._not_later: set[str] = set()
        self._later: dict[str, _Later] = {}
        self._writer: BlobWriter | None = None
        self._remaps: list[Entry] = []
        self._cut_ns = 0

    def precopy(self, pids: Sequence[int], blobs: Path) -> None:
        """Copy what changed since the last snapshot into ``blobs``; the tree is running. ``pids`` as the host has them.

        The journal must have been synced just before.
        """
        self._forget_later()
        self._writer = BlobWriter(blobs, self._sources)
        self._catalog.list_all(look(pids, thoroughly=True))
        room = self._policy.bystander_total
        for node in self._catalog.files():
            if node.role == "bystander":
                too_large = node.info.st_size > min(self._policy.bystander_file_limit, room)
                node.parts = None
                if too_large:
                    continue
                room -= node.info.st_size
            with contextlib.suppress(FileNotFoundError):
                self._save(node)

    def cut(self, pids: Sequence[int], blobs: Path, remaps: Iterable[tuple[str, str]] = ()) -> None:
        """Bring what ``precopy`` saved up to this instant; the tree is frozen and the journal synced.

        ``remaps``: (path of CRIU's link, original path) of deleted files that have another link.
        """
        writer = self._writer
        if writer is None:
            self.precopy(pids, blobs)
            writer = self._writer
            assert writer is not None
        self._cut_ns = time.time_ns()
        opened = look(pids, thoroughly=False)
        for node in self._catalog.update(opened):
            if node.role == "bystander" and node.parts is None:
                continue  # beyond the limits, or new: its size and times have to do
            if not self._is_saved(node):
                self._save_frozen(node, opened)
        self._catalog.settle()
        self._remaps = [self._save_remap(writer, path) for path, _ in remaps]

    def finish(self, blobs: Path) -> Listing:
        """The listing of the cut; the tree may be running. DumpFailedError when a file that was to be read only now
        has changed since the cut."""
        writer = self._writer
        assert writer is not None
        for path, later in list(self._later.items()):
            self._save_later(writer, self._catalog.nodes[path], later)
        entries = tuple(self._entry(node) for node in self._catalog.nodes.values())
        parts = [part for entry in (*entries, *self._remaps) for part in entry.parts or ()]
        writer.sweep({part.digest for part in parts})
        self._sources = [blobs, *self._sources[:1]]
        self._writer = None
        policy = self._policy
        return Listing(
            cut_ns=self._cut_ns,
            boot_id=boot_id(),
            roots=policy.roots,
            entries=entries,
            remaps=tuple(self._remaps),
            unsaved=tuple(e.path for e in entries if e.kind == "file" and e.role == "workspace" and e.parts is None),
            complete=self._catalog.complete,
            exclude=policy.exclude,
            include=policy.include,
        )

    # --- one file ---------------------------------------------------------------------------------------------------

    def _is_saved(self, node: Node) -> bool:
        """Whether what lies in the blob directory already is what the file holds now."""
        saved = self._saved.get((node.info.st_dev, node.info.st_ino))
        return (
            saved is not None
            and saved.settled
            and not node.mapped
            and node.parts == saved.parts
            and saved.identity == identity(node.info)
        )

    def _save(self, node: Node) -> None:
        """Read the file, write what is new of it."""
        assert self._writer is not None
        node.parts = None
        if node.info.st_size > self._policy.file_limit:
            return
        key = (node.info.st_dev, node.info.st_ino)
        saved = self._saved.get(key)
        same = saved is not None and saved.settled and not node.mapped and saved.identity == identity(node.info)
        if same and saved is not None and self._writer.link(saved.parts):
            node.parts = saved.parts
            return
        fd = open_to_read(node.path)
        try:
            info, now = os.fstat(fd), time.time_ns()
            if not stat.S_ISREG(info.st_mode) or info.st_size > self._policy.file_limit:
                return
            node.info = info
            node.parts = self._writer.save(fd, info.st_size, saved.parts if saved else ())
            self._remember(node, info.st_ctime_ns < now - SETTLED_NS)
        finally:
            os.close(fd)

    def _remember(self, node: Node, settled: bool) -> None:
        assert node.parts is not None
        # Through a shared map a page that is dirty already changes without a trace, until it is unmapped.
        settled = settled and not node.mapped
        self._saved[node.info.st_dev, node.info.st_ino] = _Saved(identity(node.info), node.parts, settled)

    def _save_frozen(self, node: Node, opened: Opened) -> None:
        size = node.info.st_size
        if not _LATER_BYTES < size <= self._policy.file_limit:
            self._save(node)
            return
        assert self._writer is not None
        fd = open_to_read(node.path)
        copy = clone(fd, self._writer.directory)
        closed = node.path not in opened.written and not node.mapped
        quiet = node.info.st_mtime_ns < self._cut_ns - SETTLED_NS
        if copy is not None:
            os.close(fd)
            self._later[node.path] = _Later(copy, fixed=True)
        elif closed and quiet and node.path not in self._not_later:
            self._later[node.path] = _Later(fd, fixed=False)
        else:
            os.close(fd)
            self._save(node)

    def _save_later(self, writer: BlobWriter, node: Node, later: _Later) -> None:
        saved = self._saved.get((node.info.st_dev, node.info.st_ino))
        node.parts = writer.save(later.fd, node.info.st_size, saved.parts if saved else ())
        now = os.fstat(later.fd)
        # Renaming and unlinking change the change time only; every write changes the modification time.
        if not later.fixed and (now.st_size, now.st_mtime_ns) != (node.info.st_size, node.info.st_mtime_ns):
            self._not_later.add(node.path)
            raise DumpFailedError(
                f"{node.path} was changed before its bytes at the cut could be copied",
                tip="the next dump copies it while the training stands still",
            )
        self._remember(node, node.info.st_ctime_ns < self._cut_ns - SETTLED_NS)
        os.close(later.fd)
        del self._later[node.path]

    def _forget_later(self) -> None:
        for later in self._later.values():
            os.close(later.fd)
        self._later.clear()

    def _save_remap(self, writer: BlobWriter, path: str) -> Entry:
        fd = open_to_read(path)
        try:
            info = os.fstat(fd)
            return _entry(path, info, "volatile", parts=writer.save(fd, info.st_size), held=True)
        finally:
            os.close(fd)

    def _entry(self, node: Node) -> Entry:
        return _entry(
            node.path,
            node.info,
            node.role,
            parts=node.parts if stat.S_ISREG(node.info.st_mode) else None,
            target=node.target,
            held=node.held,
            mapped=node.mapped,
            made=node.made,
        )


def _saved_by(listing: Listing) -> dict[tuple[int, int], _Saved]:
    """What the restored snapshot holds, as far as files still are the ones of the cut."""
    trusted = listing.boot_id == boot_id()
    return {
        (e.dev, e.ino): _Saved(
            (e.dev, e.ino, e.size, e.mtime_ns, e.ctime_ns),
            e.parts,
            trusted and not e.mapped and e.ctime_ns < listing.cut_ns - SETTLED_NS,
        )
        for e in listing.entries
        if e.parts is not None
    }


def _entry(
    path: str,
    info: os.stat_result,
    role: str,
    *,
    parts: tuple[Part, ...] | None = None,
    target: str | None = None,
    held: bool = False,
    mapped: bool = False,
    made: bool = False,
) -> Entry:
    return Entry(
        path=path,
        kind=kind_of(info.st_mode),
        role=role,  # type: ignore[arg-type]
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size,
        mtime_ns=info.st_mtime_ns,
        ctime_ns=info.st_ctime_ns,
        dev=info.st_dev,
        ino=info.st_ino,
        parts=parts,
        target=target,
        held=held,
        mapped=mapped,
        made=made,
    )
