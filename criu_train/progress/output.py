"""How far a training was when so many bytes of its output were out."""

from __future__ import annotations

import os
import re
from pathlib import Path

from criu_train.progress.line import NOTHING, Told
from criu_train.progress.reading import TAIL, Reader


def progress_at(output: Path, size: int, pattern: re.Pattern[str] | None = None) -> Told:
    """What its last lines before the byte ``size`` told; nothing where the file can't be read."""
    try:
        with output.open("rb") as file:
            file.seek(max(0, size - TAIL), os.SEEK_SET)
            data = file.read(min(size, TAIL))
    except OSError:
        return NOTHING
    reader = Reader(pattern, amid=size > TAIL)
    reader.feed(data)
    return reader.told
