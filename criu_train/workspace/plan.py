"""What has to be done to put the workspace back to what it was at the cut, and what is left alone. Reads only."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from criu_train.store.seal import PLAIN, Seal
from criu_train.workspace.blobs import open_to_read, same_prefix
from criu_train.workspace.journal import Evidence, boot_id
from criu_train.workspace.listing import SETTLED_NS, Entry, Listing, identity, kind_of
from criu_train.workspace.newer import Newer, lies_in
from criu_train.workspace.reach import is_roots_link
from criu_train.workspace.steps import Step, Verb


class Plan:
    """``steps`` in the order in which they are to be done; ``warnings`` tell what can't be put back."""

    def __init__(self, listing: Listing, evidence: Evidence, held: Path, seal: Seal = PLAIN) -> None:
        self.steps: list[Step] = []
        self.warnings: list[str] = []
        self._listing = listing
        self._evidence = evidence
        self._held = held
        self._seal = seal
        self._entries = {entry.path: entry for entry in listing.entries}
        self._remaps = {entry.path for entry in listing.remaps}
        self._rebooted = listing.boot_id != boot_id()
        newer = Newer(listing, evidence)
        self._away = set(newer.paths)
        self._made: set[str] = set()
        self.warnings += newer.warnings
        for path in newer.paths:
            self._add("move", path)
        ordered = sorted(listing.entries, key=lambda entry: entry.path)
        for entry in ordered:
            if entry.kind == "dir":
                self._settle_directory(entry)
        self._settle_files([*(entry for entry in ordered if entry.kind == "file"), *listing.remaps])
        for entry in ordered:
            if entry.kind in ("symlink", "fifo"):
                self._settle_special(entry)

    def _settle_directory(self, entry: Entry) -> None:
        info = self._now(entry.path)
        if info is not None and (stat.S_ISDIR(info.st_mode) or entry.role == "volatile"):
            if _meta(info)[:3] != (entry.mode, entry.uid, entry.gid) and self._is_trees(entry, info):
                self._add("meta", entry.path, entry=entry, info=info)
            return
        if not (entry.held or self._to_restore(entry, info)) or (entry.role == "volatile" and not entry.held):
            return
        if info is not None:
            self._add("move", entry.path)
            self._away.add(entry.path)
        self._make_directory(entry.path)

    def _make_directory(self, path: str) -> None:
        """With those above it, as they were at the cut."""
        if path in self._made:
            return
        entry, info = self._entries.get(path), self._now(path)
        if entry is None or entry.kind != "dir" or (info is not None and stat.S_ISDIR(info.st_mode)):
            return
        if info is not None:
            if is_roots_link(path):
                return
            self._add("move", path)
            self._away.add(path)
        self._make_directory(os.path.dirname(path))  # noqa: PTH120
        self._made.add(path)
        self._add("mkdir", path, entry=entry)

    def _settle_files(self, entries: Iterable[Entry]) -> None:
        first_names: dict[tuple[int, int], Entry] = {}
        renewed: set[str] = set()
        for entry in entries:
            first = first_names.setdefault((entry.dev, entry.ino), entry)
            if first is entry:
                if self._settle_file(entry):
                    renewed.add(entry.path)
            elif self._settle_link(entry, first, renewed=first.path in renewed):
                renewed.add(entry.path)

    def _settle_link(self, entry: Entry, first: Entry, *, renewed: bool) -> bool:
        info, leader = self._now(entry.path), self._now(first.path)
        if not self._to_restore(entry, info):
            return False
        if _is_other_way(entry.path, first.path):
            return renewed
        if not renewed and (leader is None or (info is not None and os.path.samestat(info, leader))):
            return False
        self._put(entry, info, link_to=first.path)
        return True

    def _settle_file(self, entry: Entry) -> bool:
        """Returns whether the path will be a new file."""
        info = self._now(entry.path)
        if (info is not None and self._untouched(entry, info)) or not self._to_restore(entry, info):
            return False
        if entry.parts is None:
            return self._settle_unsaved(entry, info)
        if info is None or not stat.S_ISREG(info.st_mode) or self._is_anothers_remap(entry, info):
            self._put(entry, info)
            return True
        if info.st_size < entry.size or not _begins_with(entry, self._seal):
            if not _is_known_by_inode(entry, info):
                self._put(entry, info)
                return True
            self._add("rewrite", entry.path, entry=entry, info=info)
        elif info.st_size > entry.size:
            self._add("cut", entry.path, entry=entry, info=info)
        elif _meta(info) != (entry.mode, entry.uid, entry.gid, entry.mtime_ns) and self._is_trees(entry, info):
            self._add("meta", entry.path, entry=entry, info=info)
        return False

    def _is_anothers_remap(self, entry: Entry, info: os.stat_result) -> bool:
        """Whether it may be the link of another job's CRIU that was killed, which may be in use by its other name."""
        return entry.path in self._remaps and info.st_nlink > 1

    def _settle_unsaved(self, entry: Entry, info: os.stat_result | None) -> bool:
        """Without the bytes: a file that only grew can be cut, one that was removed may have another name."""
        if info is not None and stat.S_ISREG(info.st_mode) and info.st_ino == entry.ino:
            if info.st_size > entry.size:
                self._add("cut", entry.path, entry=entry, info=info)
                return False
            if (info.st_size, info.st_mtime_ns) == (entry.size, entry.mtime_ns):
                return False
        elif (link := self._held_link(entry)) is not None:
            self._put(entry, info, link_to=link)
            return True
        self.warnings.append(f"changed since the snapshot and too large to have been saved: {entry.path}")
        return False

    def _held_link(self, entry: Entry) -> str | None:
        """The other name of the file, if it certainly still has the bytes of the cut."""
        if entry.held_as is None:
            return None
        link = self._held / entry.held_as
        try:
            info = link.lstat()
        except OSError:
            return None
        return str(link) if (info.st_size, info.st_mtime_ns) == (entry.size, entry.mtime_ns) else None

    def _settle_special(self, entry: Entry) -> None:
        info = self._now(entry.path)
        there = info is not None and kind_of(info.st_mode) == entry.kind
        same = there and (entry.kind == "fifo" or os.readlink(entry.path) == entry.target)  # noqa: PTH115
        if not self._to_restore(entry, info):
            return
        if not same:
            self._put(entry, info)
        elif info is not None and _meta(info)[:3] != (entry.mode, entry.uid, entry.gid):
            self._add("meta", entry.path, entry=entry, info=info)

    def _put(self, entry: Entry, info: os.stat_result | None, link_to: str | None = None) -> None:
        self._make_directory(os.path.dirname(entry.path))  # noqa: PTH120
        self._add("put" if info is None else "replace", entry.path, entry=entry, link_to=link_to)

    def _to_restore(self, entry: Entry, info: os.stat_result | None) -> bool:
        """Whether a path that is not as it was is ours to put back."""
        if entry.held:
            return True
        if entry.role == "volatile":
            return info is None
        return self._is_trees(entry, info)

    def _is_trees(self, entry: Entry, info: os.stat_result | None) -> bool:
        """Whether the tree changed or removed it, or whoever did changed what belongs to the tree."""
        if entry.role == "volatile":
            return False
        verdict = self._evidence.verdict(entry.path, self._changed_ns(entry.path, info))
        return verdict == "ours" or (verdict == "unknown" and entry.role == "workspace")

    def _changed_ns(self, path: str, info: os.stat_result | None) -> int | None:
        """When it changed; when it is gone, its directory did."""
        if info is not None:
            return info.st_ctime_ns
        above = self._now(os.path.dirname(path))  # noqa: PTH120
        return above.st_mtime_ns if above is not None else None

    def _untouched(self, entry: Entry, info: os.stat_result) -> bool:
        """Whether this is certainly the very file of the cut, bytes included."""
        return (
            not self._rebooted  # a power cut may have lost bytes and kept times
            and not entry.mapped
            and entry.ctime_ns < self._listing.cut_ns - SETTLED_NS
            and identity(info) == (entry.dev, entry.ino, entry.size, entry.mtime_ns, entry.ctime_ns)
        )

    def _now(self, path: str) -> os.stat_result | None:
        """What is there, taking what is planned to be moved away as gone."""
        if lies_in(path, self._away):
            return None
        try:
            return os.lstat(path)
        except OSError:
            return None

    def _add(
        self,
        verb: Verb,
        path: str,
        *,
        entry: Entry | None = None,
        info: os.stat_result | None = None,
        link_to: str | None = None,
    ) -> None:
        kept = f"{len(self.steps):06d}"
        if info is None:
            self.steps.append(Step(verb, path, kept, entry, link_to))
            return
        size = entry.size if entry is not None and verb != "rewrite" else 0
        self.steps.append(Step(verb, path, kept, entry, None, size, info.st_ino, *_meta(info)))


def _meta(info: os.stat_result) -> tuple[int, int, int, int]:
    return stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns


def _is_known_by_inode(entry: Entry, info: os.stat_result) -> bool:
    """Whether the tree had this very file open: sqlite then writes to no other. Not where it is mapped."""
    return entry.held and not entry.mapped and (info.st_ino, info.st_nlink) == (entry.ino, 1)


def _is_other_way(one: str, other: str) -> bool:
    """Whether two paths lead to one and the same name, as they do with a bind mount of a directory that is seen too."""
    (above, name), (other_above, other_name) = os.path.split(one), os.path.split(other)
    try:
        return name == other_name and os.path.samefile(above, other_above)  # noqa: PTH121
    except OSError:
        return False


def _begins_with(entry: Entry, seal: Seal) -> bool:
    assert entry.parts is not None
    try:
        fd = open_to_read(entry.path)
    except OSError:
        return False
    try:
        return same_prefix(fd, entry.parts, seal)
    finally:
        os.close(fd)
