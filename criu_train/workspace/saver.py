"""Getting the bytes of files into a snapshot, each at the moment when that costs the training least."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from criu_train.errors import DumpFailedError
from criu_train.store.seal import PLAIN, Seal
from criu_train.workspace.blobs import BlobWriter, is_sound, open_to_read
from criu_train.workspace.catalog import Node
from criu_train.workspace.journal import boot_id
from criu_train.workspace.leases import write_leases
from criu_train.workspace.listing import SETTLED_NS, Listing, Part, identity
from criu_train.workspace.policy import WorkspacePolicy
from criu_train.workspace.reflink import clone

# Closed files larger than this are read after the cut, when the tree runs, from a descriptor taken at the cut.
_LATER_BYTES = 16 << 20
# Blobs go from snapshot to snapshot by hard link: so many of them are read again at each dump, in turn.
_CHECK_BYTES = 64 << 20
_CHECK_COUNT = 1_000  # a third of a second
HELD = "held"


@dataclass(frozen=True, slots=True)
class _Saved:
    """Bytes that lie in a blob directory, and what the file looked like before they were read."""

    identity: tuple[int, int, int, int, int]
    parts: tuple[Part, ...]
    settled: bool  # a later change can't have left the same times


@dataclass(frozen=True, slots=True)
class _Later:
    """A file to be read after the cut. ``fixed``: a clone that nobody can change."""

    node: Node
    fd: int
    fixed: bool


class Saver:
    """Saves files into one blob directory after the other, and remembers what it has already.

    ``listing``, ``blobs``: of a snapshot that is there already. ``hold``: keep another name of files that are too
    large to save, in ``held`` beside the blobs, so that at least their removal can be undone. ``seal``: the store's.
    """

    def __init__(
        self, policy: WorkspacePolicy, listing: Listing | None, blobs: Path | None, *, hold: bool, seal: Seal = PLAIN
    ) -> None:
        self._policy = policy
        self._seal = seal
        self._hold = hold
        self._saved = _saved_by(listing) if listing is not None else {}
        self._sources = [blobs] if blobs is not None else []
        self._not_later: set[str] = set()
        self._later: list[_Later] = []
        self._unsettled: list[str] = []
        self._append_only = frozenset(policy.include)
        self._checked: dict[str, int] = {}  # blobs of the newest snapshot, and at which dump they were last read
        self._rotten: set[int] = set()
        self._leased: frozenset[tuple[int, int]] = frozenset()
        self._dumps = 0

    def begin(self, blobs: Path) -> None:
        """From now on everything goes into ``blobs``."""
        for later in self._later:
            os.close(later.fd)
        self._later.clear()
        self._blobs = blobs
        self.look_for_leases()
        self._check_some()
        self._writer = BlobWriter(blobs, self._sources, self._rotten, self._seal)

    def look_for_leases(self) -> None:
        """Files that must not be opened from now on."""
        self._leased = write_leases()

    def save_all(self, nodes: Iterable[Node]) -> None:
        """While the tree runs: everything within the limits; files that vanish meanwhile are passed over."""
        policy = self._policy
        room = policy.bystander_total
        self._unsettled.clear()
        for node in nodes:
            node.parts = None
            size = node.info.st_size
            if node.role == "bystander":
                node.bare = size > min(policy.bystander_file_limit, room)
                room -= 0 if node.bare else size
            elif node.role == "volatile":
                node.bare = size > policy.volatile_file_limit
            if not node.bare:
                with contextlib.suppress(FileNotFoundError):
                    self._save(node)
                if not self._is_saved(node):
                    self._unsettled.append(node.path)

    def save_frozen(self, node: Node, written: Collection[str], cut_ns: int) -> None:
        """While the tree is frozen: only what is not saved as it is now. ``written``: files open for writing."""
        size = node.info.st_size
        if node.bare or (node.role == "bystander" and size > self._policy.bystander_file_limit):
            return
        if self._is_leased(node.info):
            node.parts = None
        elif self._is_too_large(node.path, size):
            node.parts = None
            if self._hold and node.role == "workspace":
                node.held_as = self._hold_name(node.path)
        elif self._is_saved(node):
            return
        elif node.path in self._append_only:
            self._save(node, grown=True)
        elif size <= _LATER_BYTES or not self._put_off(node, written, cut_ns):
            self._save(node)

    @property
    def unsettled(self) -> list[str]:
        """What ``save_all`` saved that may have changed since without a trace, or could not save."""
        return self._unsettled

    def save_link(self, path: str) -> tuple[os.stat_result, tuple[Part, ...]]:
        """A file by path, now and whole."""
        fd = open_to_read(path)
        try:
            info = os.fstat(fd)
            return info, self._writer.save(fd, info.st_size)
        finally:
            os.close(fd)

    def finish_later(self, cut_ns: int) -> None:
        """When the tree runs again: what was put off. DumpFailedError when such a file has changed since the cut."""
        while self._later:
            later = self._later[-1]
            node = later.node
            saved = self._saved.get((node.info.st_dev, node.info.st_ino))
            node.parts = self._writer.save(later.fd, node.info.st_size, saved.parts if saved else ())
            now = os.fstat(later.fd)
            # Renaming and unlinking change the change time only; every write changes the modification time.
            if not later.fixed and (now.st_size, now.st_mtime_ns) != (node.info.st_size, node.info.st_mtime_ns):
                self._not_later.add(node.path)
                raise DumpFailedError(
                    f"{node.path} was changed before its bytes at the cut could be copied",
                    tip="the next dump copies it while the training stands still",
                )
            self._remember(node, node.info.st_ctime_ns < cut_ns - SETTLED_NS)
            os.close(later.fd)
            self._later.pop()

    def finish(self, used: Iterable[Part]) -> None:
        """The snapshot is whole: drop what was overtaken."""
        self._writer.sweep({part.digest for part in used})
        self._sources = [self._blobs, *self._sources[:1]]

    def _is_saved(self, node: Node) -> bool:
        """Whether what lies in the blob directory already is what the file holds now."""
        saved = self._known(node)
        return saved is not None and node.parts == saved.parts

    def _known(self, node: Node) -> _Saved | None:
        """What is known of this file's bytes, if it certainly still has them."""
        saved = self._saved.get((node.info.st_dev, node.info.st_ino))
        if saved is None or not saved.settled or node.mapped or saved.identity != identity(node.info):
            return None
        return saved

    def _is_too_large(self, path: str, size: int) -> bool:
        return size > self._policy.file_limit and path not in self._append_only

    def _is_leased(self, info: os.stat_result) -> bool:
        return (info.st_dev, info.st_ino) in self._leased

    def _check_some(self) -> None:
        """Read again the blobs that have not been read for longest; those that are rotten are not linked any more."""
        source, room = next(iter(self._sources), None), _CHECK_BYTES
        if source is None or not source.is_dir():
            return
        self._checked = {name: self._checked.get(name, self._dumps) for name in sorted(os.listdir(source))}  # noqa: PTH208
        self._dumps += 1
        for name in sorted(self._checked, key=self._checked.__getitem__)[:_CHECK_COUNT]:
            if room <= 0:
                return
            blob = source / name
            with contextlib.suppress(FileNotFoundError):
                info = blob.lstat()
                room -= info.st_size
                self._checked[name] = self._dumps
                if not is_sound(blob):
                    self._rotten.add(info.st_ino)

    def _save(self, node: Node, *, grown: bool = False) -> None:
        """Read the file, write what is new of it."""
        node.parts = None
        if self._is_too_large(node.path, node.info.st_size) or self._is_leased(node.info):
            return
        known = self._known(node)
        if known is not None and self._writer.link(known.parts):
            node.parts = known.parts
            return
        fd = open_to_read(node.path)
        try:
            info, now = os.fstat(fd), time.time_ns()
            if not stat.S_ISREG(info.st_mode) or self._is_too_large(node.path, info.st_size):
                return
            node.info = info
            saved = self._saved.get((info.st_dev, info.st_ino))
            node.parts = self._writer.save(fd, info.st_size, saved.parts if saved else (), grown=grown)
            self._remember(node, info.st_ctime_ns < now - SETTLED_NS)
        finally:
            os.close(fd)

    def _remember(self, node: Node, settled: bool) -> None:
        assert node.parts is not None
        # Through a shared map a page that is dirty already changes without a trace, until it is unmapped.
        settled = settled and not node.mapped
        self._saved[node.info.st_dev, node.info.st_ino] = _Saved(identity(node.info), node.parts, settled)

    def _put_off(self, node: Node, written: Collection[str], cut_ns: int) -> bool:
        """Keep a large file as it is now in hand, to read it when the tree runs again; False where that is unsafe."""
        fd = open_to_read(node.path)
        copy = clone(fd, self._writer.directory)
        if copy is not None:
            os.close(fd)
            self._later.append(_Later(node, copy, fixed=True))
            return True
        closed = node.path not in written and not node.mapped
        if closed and node.info.st_mtime_ns < cut_ns - SETTLED_NS and node.path not in self._not_later:
            self._later.append(_Later(node, fd, fixed=False))
            return True
        os.close(fd)
        return False

    def _hold_name(self, path: str) -> str | None:
        """Another name for the file beside the blobs; None on another filesystem."""
        directory = self._blobs.parent / HELD
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o700, exist_ok=True)
            name = f"{len(os.listdir(directory)):06d}"  # noqa: PTH208
            os.link(path, directory / name, follow_symlinks=False)
            return name
        return None


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
