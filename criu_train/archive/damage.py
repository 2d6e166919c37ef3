"""What is stored is not what was stored."""

from __future__ import annotations

from pathlib import Path

from criu_train.errors import StoreError


class DamagedError(StoreError):
    """A file of a snapshot does not hold what was written to it; ``path`` names it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}", tip="an older snapshot is used instead")
        self.path = path

    @classmethod
    def unreadable(cls, path: Path, error: OSError) -> DamagedError:
        """The disk, or somebody who removed it, does not let us read it."""
        return cls(path, f"can't be read: {error.strerror}")
