"""An output, read piece by piece; of lines that look alike only the newest, so that it costs little."""

from __future__ import annotations

import re
from dataclasses import replace

from criu_train.progress.line import NOTHING, Told, read_line, read_with

# Of so much of the end: what was told before that is too old to be told of.
TAIL = 256 << 10
_LONGEST = 2048  # characters of a line: what goes on for longer tells no numbers
_LONGEST_BYTES = 4 * _LONGEST  # with colours, and what bars are painted with
_SHAPES = 64  # lines that look different, in one piece: whatever prints more of them tells no numbers with them
_MOST = 100  # metrics, and characters of a name
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_ENDS = re.compile(rb"[\r\n\b]+")
_DIGITS = b"0123456789"


class Reader:
    """Takes an output in pieces. ``told``: all that its whole lines told, the latest where several tell the same.

    A line that is just being printed counts only where it is a bar that is whole, since a number might be cut off.
    ``amid``: the first piece begins within a line.
    """

    def __init__(self, pattern: re.Pattern[str] | None = None, *, amid: bool = False) -> None:
        self._pattern = pattern
        self._rest = b""
        self._passed_over = amid  # the beginning of the line that is being printed
        self._told = NOTHING
        self._bar = NOTHING

    @property
    def told(self) -> Told:
        return _few(self._told.then(self._bar))

    def feed(self, piece: bytes, *, amid: bool = False) -> None:
        """``amid``: something before it is left out, so that its first line is no line."""
        if amid:
            self._rest, self._passed_over = b"", True
        *whole, rest = _ENDS.split(self._rest + piece)
        if whole and self._passed_over:
            whole, self._passed_over = whole[1:], False
        if len(rest) > _LONGEST_BYTES:
            rest, self._passed_over = b"", True
        self._rest = rest
        newest: dict[bytes, bytes] = {}
        for line in whole:
            if line and len(line) <= _LONGEST_BYTES:
                shape = line.translate(None, _DIGITS)
                newest.pop(shape, None)  # to the end with it: what is told last counts
                newest[shape] = line
        for line in list(newest.values())[-_SHAPES:]:
            self._told = _few(self._told.then(self._read(line)))
        is_bar = not self._passed_over and rest.rstrip().endswith(b"]")
        self._bar = self._read(rest) if is_bar else NOTHING

    def _read(self, line: bytes) -> Told:
        text = _COLOURS.sub("", line.decode(errors="replace"))
        if len(text) > _LONGEST:
            return NOTHING
        return read_with(self._pattern, text) if self._pattern else read_line(text)


def _few(told: Told) -> Told:
    if len(told.metrics) <= _MOST and all(len(name) <= _MOST for name in told.metrics):
        return told
    few = [(name, value) for name, value in told.metrics.items() if len(name) <= _MOST][:_MOST]
    return replace(told, metrics=dict(few))
