"""What the tree did to files, and the bytes to undo what it does after the cut.

``precopy`` while the tree runs does nearly all of the work; ``cut`` while it is frozen looks at everything again and
copies only what changed in between; ``finish`` when it runs again. What a dump that fails leaves behind does no harm:
whatever can't be linked any more is saved again.

Guarantee: the listing is the workspace exactly as of ``cut``, or ``finish`` raises. Limits: files larger than the limit
and those under a write lease are named in ``unsaved``; of bystanders beyond their limits only size and times are kept;
extended attributes are not kept; files that the tree changes outside of the roots for the first time after the cut are
not known before.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from criu_train.store.seal import PLAIN, Seal
from criu_train.workspace.catalog import Catalog, Node
from criu_train.workspace.journal import boot_id
from criu_train.workspace.listing import Entry, Listing, Part, Role, kind_of
from criu_train.workspace.opened import look
from criu_train.workspace.policy import WorkspacePolicy
from criu_train.workspace.saver import Saver

__all__ = ["Tracker", "WorkspacePolicy"]


class Tracker:
    """Saves the workspace of one cell, dump after dump. One call at a time.

    ``listing``, ``blobs``: of the snapshot that this cell was restored from. ``hold``: files too large to save get
    another name in ``held`` beside the blobs, where the filesystem allows it. ``seal``: of the store that blobs go to.
    """

    def __init__(
        self,
        policy: WorkspacePolicy,
        listing: Listing | None,
        journal: Path,
        *,
        blobs: Path | None = None,
        hold: bool = False,
        seal: Seal = PLAIN,
    ) -> None:
        self.journal = journal
        self._policy = policy = policy.resolved()
        self._catalog = Catalog(policy, journal, listing)
        self._saver = Saver(policy, listing, blobs, hold=hold, seal=seal)
        self._remaps: list[Entry] = []
        self._cut_ns = 0

    def precopy(self, pids: Sequence[int], blobs: Path) -> None:
        """Copy what changed since the last snapshot into ``blobs``; the tree is running. ``pids`` as the host has them.

        The journal must have been synced just before.
        """
        self._saver.begin(blobs)
        self._catalog.list_all(look(pids, thoroughly=True))
        self._saver.save_all(self._catalog.files())

    def cut(self, pids: Sequence[int], blobs: Path, remaps: Iterable[tuple[str, str]] = ()) -> None:
        """Bring what ``precopy`` saved to ``blobs`` up to this instant; the tree is frozen and the journal synced.

        ``remaps``: (path of CRIU's link, original path) of deleted files that have another link.
        """
        self._cut_ns = time.time_ns()
        opened = look(pids, thoroughly=False)
        self._saver.look_for_leases()
        for node in self._catalog.update(opened, self._saver.unsettled):
            try:
                self._saver.save_frozen(node, opened.written, self._cut_ns)
            except FileNotFoundError:  # others are not frozen
                del self._catalog.nodes[node.path]
        self._catalog.settle()
        self._remaps = [self._save_remap(path) for path, _ in remaps]

    def finish(self, blobs: Path) -> Listing:
        """The listing of the cut; the tree may be running. DumpFailedError when a file that was to be read only now
        has changed since the cut."""
        self._saver.finish_later(self._cut_ns)
        entries = tuple(_entry_of(node) for _, node in sorted(self._catalog.nodes.items()))
        self._saver.finish(part for entry in (*entries, *self._remaps) for part in entry.parts or ())
        self._catalog.forget()
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

    def _save_remap(self, path: str) -> Entry:
        info, parts = self._saver.save_link(path)
        return _entry(path, "volatile", info, parts, held=True)


def _entry_of(node: Node) -> Entry:
    return _entry(
        node.path,
        node.role,
        node.info,
        node.parts if stat.S_ISREG(node.info.st_mode) else None,
        target=node.target,
        held=node.held,
        mapped=node.mapped,
        made=node.made,
        held_as=node.held_as,
    )


def _entry(
    path: str,
    role: Role,
    info: os.stat_result,
    parts: tuple[Part, ...] | None,
    *,
    target: str | None = None,
    held: bool = False,
    mapped: bool = False,
    made: bool = False,
    held_as: str | None = None,
) -> Entry:
    return Entry(
        path=path,
        kind=kind_of(info.st_mode),
        role=role,
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
        held_as=held_as,
    )
