"""Names that CRIU lends to deleted files and directories while it restores.

It takes them back by itself, unless it is killed. Then they are in the way of the next restore, for good: CRIU makes
them only where nothing is (O_EXCL).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from criu_train.criu.images import Images
from criu_train.store.snapshot import Snapshot
from criu_train.workspace.listing import Listing
from criu_train.workspace.reach import reach


def take_back(snapshot: Snapshot, listing: Listing, pycriu: Path | None) -> None:
    """Remove what a killed restore of this snapshot has left; nobody else may be restoring, nor the tree be there.

    A directory of that name that there was at the dump is none of it. What can't be removed stays, and CRIU will tell.
    Raises StoreError for a damaged image.
    """
    at_the_dump = {entry.path for entry in listing.entries}
    for lent in Images(snapshot.images, pycriu, snapshot.read_image).lent_names():
        if lent.path not in at_the_dump:
            with contextlib.suppress(OSError), reach(lent.path) as path:
                if lent.directory:
                    os.rmdir(path)  # noqa: PTH106
                else:
                    os.unlink(path)  # noqa: PTH108
