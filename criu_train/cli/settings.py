"""What every command gets from the root command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from criu_train.store.seal import Key

DEFAULT_STORE = Path(".criu-train")  # in the working directory


@dataclass(frozen=True)
class Settings:
    """``store``: the store's directory, which need not exist yet; ``key_file``: of an encrypted one.

    ``umask``: the caller's, for the training.
    """

    store: Path
    key_file: Path | None = None
    umask: int = 0o022

    @property
    def key(self) -> Key | None:
        """Raises UsageError for a file that is no key."""
        from criu_train.store.seal import Key

        return Key.read(self.key_file) if self.key_file else None
