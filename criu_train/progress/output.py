"""How far a training was when so many bytes of its output were out."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from criu_train.progress.line import Told, read_line, read_with

# Of so much of the end: what was told before that is too old to be told of.
_TAIL = 256 << 10
_LONGEST = 2048  # of a line: what goes on for longer tells no numbers
_MOST = 100  # metrics, and characters of a name
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_ENDS = re.compile(r"[\r\n\b]+")


def progress_at(output: Path, size: int, pattern: re.Pattern[str] | None = None) -> Told:
    """What its last lines before the byte ``size`` told; nothing where the file can't be read.

    A line that was just being printed counts only where it is a bar that is whole, since a number might be cut off.
    """
    try:
        with output.open("rb") as file:
            file.seek(max(0, size - _TAIL), os.SEEK_SET)
            data = file.read(min(size, _TAIL))
    except OSError:
        return Told()
    *whole, last = _ENDS.split(_COLOURS.sub("", data.decode(errors="replace")))
    if size > _TAIL:
        whole = whole[1:]  # it began before
    if last.rstrip().endswith("]"):
        whole.append(last)
    told = Told()
    for line in whole:
        if line and len(line) <= _LONGEST:
            told = told.then(read_with(pattern, line) if pattern else read_line(line))
    few = [(name, value) for name, value in told.metrics.items() if len(name) <= _MOST][:_MOST]
    return replace(told, metrics=dict(few))
