"""What the programs here share: the way of the zoo to tell progress, and a note of each restore."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "zoo"))

from progress import report

__all__ = ["note_restore", "report"]


def note_restore(model: object) -> None:
    """A line beside the working directory, in a file of this rank; ``model`` must be the one that is trained."""
    with open(f"../restored-{os.environ.get('LOCAL_RANK', '0')}", "a") as file:
        file.write(f"{type(model).__name__}\n")
