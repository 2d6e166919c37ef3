"""What every command gets from the root command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_STORE = Path(".criu-train")  # in the working directory


@dataclass(frozen=True)
class Settings:
    """``store``: the store's directory, which need not exist yet."""

    store: Path
