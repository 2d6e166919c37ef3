"""Whose fault it is that a snapshot could not be restored.

A full disk, or one that is not there for a moment, fails every snapshot alike: passing them over would end in a cold
start, and all that the training had done would be lost to it.
"""

from __future__ import annotations

import errno

from criu_train.errors import CriuTrainError, EnvironmentUnfitError, StoreError
from criu_train.store.store import Store

_OF_THE_MACHINE = {
    errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.ENODEV, errno.ENXIO,
}  # fmt: skip


def blame_the_snapshot(error: CriuTrainError | OSError, store: Store) -> tuple[str, str | None]:
    """Reason and tip, for the table. Raises EnvironmentUnfitError where it is no snapshot's fault."""
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        raise EnvironmentUnfitError(
            f"the files could not be put back: {error.strerror}",
            tip="see to it and run the same command again: no snapshot is harmed",
        ) from error
    try:
        Store.open(store.layout.root)
    except StoreError as gone:
        raise EnvironmentUnfitError(
            f"the store can't be read any more: {gone}", tip="bring it back, then run the same command again"
        ) from error
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}", None
    return str(error), error.tip
