"""What the tree made after the cut and the cut did not have: it has to go, and only it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from criu_train.workspace.journal import OTHER, OTHER_MADE, OURS, OURS_MADE, OURS_WROTE, Evidence
from criu_train.workspace.listing import SETTLED_NS, Listing, kind_of
from criu_train.workspace.scan import CRIUS, walk
from criu_train.workspace.statx import born_ns


class Newer:
    """``paths`` to be moved away, none below another; ``warnings`` about what was there before but was not listed."""

    def __init__(self, listing: Listing, evidence: Evidence) -> None:
        self.paths: list[str] = []
        self.warnings: list[str] = []
        self._listing = listing
        self._evidence = evidence
        self._known = {entry.path for entry in listing.entries}
        self._found: set[str] = set()
        self._judged: set[str] = set()
        self._excluded = tuple(path + "/" for path in listing.exclude)
        self._search()

    def _search(self) -> None:
        for path in sorted(path for path, bits in self._evidence.flags.items() if bits & OURS):
            self._consider(path)
        exclude, since = frozenset(self._listing.exclude), self._listing.cut_ns - SETTLED_NS
        for root in self._listing.roots:
            for found in walk(root, exclude, changed_since_ns=since):
                self._consider(found.path)
        made = {entry.path for entry in self._listing.entries if entry.made}
        for top in made:
            if os.path.dirname(top) not in made:  # noqa: PTH120
                for found in walk(top, exclude, skip_installed=False, changed_since_ns=since):
                    self._consider(found.path)

    def _consider(self, path: str) -> None:
        if path in self._known or path in self._judged:
            return
        self._judged.add(path)
        if path.startswith(self._excluded) or path in self._listing.exclude:
            return
        if CRIUS.match(os.path.basename(path)) or lies_in(path, self._found):  # noqa: PTH119
            return
        try:
            info = os.lstat(path)
        except OSError:
            return
        if kind_of(info.st_mode) == "other" or not self._is_ours(path, info):
            return
        if stat.S_ISDIR(info.st_mode) and (self._others_below(path) or os.path.ismount(path)):
            for found in walk(path, (), skip_installed=False):
                self._consider(found.path)
            return
        self.paths.append(path)
        self._found.add(path)

    def _is_ours(self, path: str, info: os.stat_result) -> bool:
        """Whether the tree made this path after the cut."""
        own = self._evidence.flags.get(path, 0)
        if own & (OURS_MADE | OTHER_MADE):
            return bool(own & OURS_MADE)
        if own & OURS_WROTE and self._evidence.trusted and stat.S_ISREG(info.st_mode):
            self.warnings.append(f"changed for the first time after the snapshot, left as it is: {path}")
        if own & OTHER or (own & OURS and self._evidence.trusted):
            return False
        above = self._evidence.about(path, OURS_MADE, OTHER_MADE)
        if above & (OURS_MADE | OTHER_MADE):
            return bool(above & OURS_MADE)
        if not self._evidence.lived(info.st_ctime_ns):
            return False
        # Where not everything was listed, only what was born after the cut is certainly new.
        born = None if self._listing.complete else born_ns(path)
        return self._listing.complete or (born is not None and born >= self._listing.cut_ns - SETTLED_NS)

    def _others_below(self, directory: str) -> bool:
        inside = directory + "/"
        flags = self._evidence.flags
        return any(bits & OTHER_MADE and not bits & OURS and path.startswith(inside) for path, bits in flags.items())


def lies_in(path: str, directories: Collection[str]) -> bool:
    """Whether the path is one of these or below one."""
    while len(path) > 1:
        if path in directories:
            return True
        path = os.path.dirname(path)  # noqa: PTH120
    return False
