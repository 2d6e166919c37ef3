"""Walking directories: what lies below, without what is large, not ours to save, and never a training's output."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator

SKIPPED_NAMES = frozenset((".git", "node_modules"))
# Names that CRIU gives to files of its own while it dumps or restores.
CRIUS = re.compile(r"link_remap\.\d+\Z|\.criu\.|.*\.cr\.[0-9a-f]+\.ghost\Z")
# A directory with one of these in it is an installed environment.
_MARKERS = frozenset(("pyvenv.cfg", "conda-meta"))


def walk(
    top: str, exclude: Collection[str], *, skip_installed: bool = True, changed_since_ns: int = 0
) -> Iterator[os.DirEntry[str]]:
    """Everything below ``top``, breadth first, directories before what is in them; nothing of ``exclude``.

    ``changed_since_ns``: only what lies in directories to which something was added or taken from since.
    Does not follow symlinks and does not leave the filesystem of ``top``. Directories that vanish are passed over.
    """
    try:
        device = os.stat(top).st_dev  # noqa: PTH116
    except OSError:
        return
    pending = [top]
    for directory in pending:  # grows meanwhile
        try:
            # Before it is read: what comes later is for the next time.
            changed = not changed_since_ns or os.stat(directory).st_ctime_ns >= changed_since_ns  # noqa: PTH116
            with os.scandir(directory) as found:
                entries = list(found)
        except OSError:
            continue
        if skip_installed and directory != top and any(entry.name in _MARKERS for entry in entries):
            continue
        for entry in entries:
            if entry.path in exclude or CRIUS.match(entry.name):
                continue
            if changed:
                yield entry
            try:
                descend = entry.is_dir(follow_symlinks=False) and not (skip_installed and entry.name in SKIPPED_NAMES)
                if descend and entry.stat(follow_symlinks=False).st_dev == device:
                    pending.append(entry.path)
            except OSError:
                continue
