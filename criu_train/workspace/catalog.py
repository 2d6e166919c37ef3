"""Which paths a snapshot is about, and in what role: workspace, bystander or volatile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from criu_train.workspace.journal import OTHER, OURS, Evidence, JournalReader
from criu_train.workspace.listing import Listing, Part, Role, identity
from criu_train.workspace.opened import Opened
from criu_train.workspace.policy import VOLATILE, WorkspacePolicy
from criu_train.workspace.scan import walk


@dataclass(slots=True)
class Node:
    """One path as last seen. ``parts`` and ``held_as`` are filled in by the saver.

    ``bare``: its bytes are not wanted, size and times have to do.
    """

    path: str
    role: Role
    info: os.stat_result
    parts: tuple[Part, ...] | None = None
    target: str | None = None
    held: bool = False
    mapped: bool = False
    made: bool = False
    held_as: str | None = None
    bare: bool = False


class Catalog:
    """The paths of one cell's workspace, kept up to date from its journal and from what the tree holds open."""

    def __init__(self, policy: WorkspacePolicy, journal: Path, restored: Listing | None) -> None:
        self.nodes: dict[str, Node] = {}
        self.complete = True
        self._policy = policy
        self._exclude = frozenset(policy.exclude)
        self._excluded = tuple(path + "/" for path in policy.exclude)
        self._inside = tuple(root.rstrip("/") + "/" for root in policy.roots)
        self._reader = JournalReader(journal)
        self._evidence = Evidence()
        self._touched: set[str] = set()
        self._any_mapped = False
        self._fresh: list[Node] = []
        self._ours = set(policy.include)
        self._made: set[str] = set()
        if restored is not None:
            self._ours.update(entry.path for entry in restored.entries if entry.role == "workspace")
            self._made.update(entry.path for entry in restored.entries if entry.made)

    def list_all(self, opened: Opened) -> None:
        """Anew, from everything there is; the tree may be running."""
        self._follow_journal()
        old, self.nodes, self.complete = self.nodes, {}, True
        self._take_in(opened)
        for path in self._ours | self._made:
            self._see(path, "workspace")
        self._see_all_below()
        self._see_bystanders()
        for path, node in self.nodes.items():
            if path in old:
                node.parts = old[path].parts
        self._see_volatile(opened)
        self._join_links(self.nodes.values())
        self._hold(opened)

    def update(self, opened: Opened, doubtful: Iterable[str]) -> list[Node]:
        """Look again; returns the files that may have changed, with what they are now, and ``doubtful`` ones.

        The tree is frozen.
        """
        news = self._follow_journal()
        self._take_in(opened)
        self._fresh.clear()
        trusted = self._evidence.trusted
        for path in self._ours & self.nodes.keys():
            self._see(path, "workspace")
        again = [
            node.path
            for node in self.nodes.values()
            if node.role != "bystander" or not trusted or node.path in self._touched
        ]
        for path in again:
            self._look_again(self.nodes[path])
        for path in self._ours:
            self._see(path, "workspace")
        for directory in self._made & news:
            self._see(directory, "workspace")
            self._see_below(directory)
        if trusted:
            self._see_new_bystanders(path for path in news if path.startswith(self._inside))
        else:
            self._see_all_below()
            self._see_bystanders()
        self._see_volatile(opened)
        looked_at = [*again, *(node.path for node in self._fresh), *doubtful]
        looked_at += self._join_links([self.nodes[path] for path in looked_at if path in self.nodes])
        self._hold(opened)
        return [node for path in dict.fromkeys(looked_at) if (node := self.nodes.get(path)) and _is_file(node)]

    def settle(self) -> None:
        """The cut is done: what is gone now will be journaled when it comes back."""
        self._touched.clear()
        self._ours = {path for path in self._ours if path in self.nodes} | set(self._policy.include)
        self._made &= self.nodes.keys()

    def forget(self) -> None:
        """Let go of what was told of paths that are not there: when they come back that will be told again.

        A rollback to an earlier snapshot reads the journal itself.
        """
        flags = self._evidence.flags
        self._evidence.flags = {path: bits for path, bits in flags.items() if path in self.nodes}

    def files(self) -> Iterator[Node]:
        """The regular ones."""
        return (node for node in self.nodes.values() if _is_file(node))

    def _follow_journal(self) -> set[str]:
        news = set()
        for record in self._reader.news():
            path = self._evidence.add(record)
            if path is not None:
                news.add(path)
                if record["who"] == "ours":
                    self._ours.add(path)
        self._made |= self._evidence.directories
        self._evidence.directories.clear()
        self._touched |= news
        return news

    def _take_in(self, opened: Opened) -> None:
        for path in opened.written | opened.mapped:
            if not path.startswith(self._excluded):
                self._ours.add(path)

    def _see(self, path: str, role: Role, info: os.stat_result | None = None) -> Node | None:
        known = self.nodes.get(path)
        if known is not None:
            if role == "workspace":
                known.role, known.made, known.bare = role, path in self._made, False
            return known
        try:
            info = info or os.lstat(path)
            target = os.readlink(path) if stat.S_ISLNK(info.st_mode) else None  # noqa: PTH115
        except OSError:
            return None
        if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            return None
        node = self.nodes[path] = Node(path, role, info, target=target, made=path in self._made)
        self._fresh.append(node)
        self._see_above(path)
        return node

    def _see_above(self, path: str) -> None:
        """The directories that lead to it: a reboot or a person may have removed them."""
        while (path := os.path.dirname(path)) not in ("/", "") and path not in self.nodes:  # noqa: PTH120
            self._see(path, "volatile")

    def _see_new_bystanders(self, paths: Iterable[str]) -> None:
        """Somebody made something: that it was there at the cut has to be known, its bytes need not."""
        for path in paths:
            if path in self.nodes:
                continue
            node = self._see(path, "bystander")
            if node is not None:
                node.bare = True
                for entry in walk(path, self._exclude) if stat.S_ISDIR(node.info.st_mode) else ():
                    if entry.path not in self.nodes and (below := self._see(entry.path, "bystander")):
                        below.bare = True

    def _see_all_below(self) -> None:
        for directory in self._made:
            if os.path.dirname(directory) not in self._made:  # noqa: PTH120
                self._see_below(directory)

    def _see_below(self, directory: str) -> None:
        """In a directory that the tree made everything is the tree's that isn't known to be somebody else's."""
        for entry in walk(directory, self._exclude, skip_installed=False):
            bits = self._evidence.flags.get(entry.path, 0)
            self._see(entry.path, "bystander" if bits & OTHER and not bits & OURS else "workspace")

    def _see_bystanders(self) -> None:
        left = self._policy.bystander_count
        for root in self._policy.roots:
            self._see(root, "volatile")
            for entry in walk(root, self._exclude):
                if entry.path in self.nodes:
                    continue
                left -= 1
                if left < 0:
                    self.complete = False
                    return
                self._see(entry.path, "bystander")

    def _see_volatile(self, opened: Opened) -> None:
        for path in opened.read:
            if path.startswith(VOLATILE) and not path.startswith(self._excluded):
                self._see(path, "volatile")
        for path in opened.directories:
            self._see(path, "volatile")
        for path in opened.sockets:
            self._see_above(path)

    def _join_links(self, nodes: Iterable[Node]) -> list[str]:
        """What the tree does to a file by one name it does to it by all; returns names to be looked at for that."""
        inodes = {n.info.st_ino for n in nodes if n.info.st_nlink > 1 and n.role == "workspace" and _is_file(n)}
        joined = []
        for node in list(self.nodes.values()) if inodes else ():
            if node.info.st_ino in inodes and node.role != "workspace":
                self._look_again(node)
                self._see(node.path, "workspace")
                joined.append(node.path)
        return joined

    def _hold(self, opened: Opened) -> None:
        if opened.mapped or opened.mapped_inodes or self._any_mapped:
            # By number too: the name by which it was mapped may be gone. One that is taken for another costs time only.
            for path, node in self.nodes.items():
                node.mapped = path in opened.mapped or (node.info.st_ino in opened.mapped_inodes and _is_file(node))
        self._any_mapped = bool(opened.mapped or opened.mapped_inodes)
        parents = {os.path.dirname(path) for path in opened.sockets}  # noqa: PTH120
        for path in opened.written | opened.mapped | opened.read | opened.directories | parents:
            if path in self.nodes:
                self.nodes[path].held = True

    def _look_again(self, node: Node) -> None:
        try:
            info = os.lstat(node.path)
        except OSError:
            del self.nodes[node.path]
            return
        if identity(info) != identity(node.info):
            del self.nodes[node.path]
            again = self._see(node.path, node.role, info)
            if again is not None:
                again.bare, again.held = node.bare, node.held
                again.parts = node.parts if _is_file(node) else None


def _is_file(node: Node) -> bool:
    return stat.S_ISREG(node.info.st_mode)
