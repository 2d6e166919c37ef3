"""The page of one process: how far it is, in numbers that others can read at any moment. Standard library only."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

from criu_train.hooks import layout


class Page:
    """Raises OSError where it can't be made, with all the room that it takes."""

    def __init__(self, path: Path) -> None:
        self._page = _new_page(path)
        self.words = memoryview(self._page).cast("Q")
        self.words[0] = layout.MAGIC
        self.number, self.step, self._epoch = 0, layout.UNKNOWN_STEP, math.nan
        self._index: dict[str, int] = {}
        self._values: list[float] = []
        self._format = layout.report_format(0)

    @property
    def position(self) -> int:
        """The step; where none is ever told, which report this is."""
        return self.number if self.step == layout.UNKNOWN_STEP else self.step

    def report(
        self, step: SupportsIndex | None, epoch: SupportsFloat | None, metrics: Mapping[str, SupportsFloat]
    ) -> None:
        """Write it down, in microseconds."""
        try:
            values, index = self._values, self._index
            for name, value in metrics.items():
                values[index[name]] = float(value)
            self._write(self.step if step is None else int(step), self._epoch if epoch is None else float(epoch))
        except Exception:  # a new name, or whatever a number that is none may raise
            self._write_with_care(step, epoch, metrics)

    def write_digest(self, digest: str) -> None:
        """Hexadecimal; empty for none."""
        end = layout.DIGEST + layout.DIGEST_BYTES
        self._page[layout.DIGEST : end] = digest.encode().ljust(layout.DIGEST_BYTES, b"\0")

    def close(self) -> None:
        """Let go of it."""
        self.words.release()
        with contextlib.suppress(BufferError):
            self._page.close()

    def _write(self, step: int, epoch: float) -> None:
        number, values = self.number + 1, self._values
        where = layout.REPORTS[number & 1]
        self._format.pack_into(self._page, where, number, len(values), step, epoch, *values, number)
        self.number, self.step, self._epoch = number, step, epoch

    def _write_with_care(self, step: Any, epoch: Any, metrics: Mapping[str, Any]) -> None:
        """The first report of a metric, or one with something that is no number, which is left out."""
        for name, value in metrics.items():
            number = _float(value, math.nan)
            if name in self._index:
                self._values[self._index[name]] = number
            elif not math.isnan(number) and len(self._values) < layout.METRICS:
                self._learn(name, number)
        self._write(_int(step, self.step), _float(epoch, self._epoch))

    def _learn(self, name: str, number: float) -> None:
        names = json.dumps([*self._index, name]).encode()
        if len(names) < layout.NAMES_BYTES:
            self._index[name] = len(self._values)
            self._values.append(number)
            self._page[layout.NAMES : layout.NAMES + layout.NAMES_BYTES] = names.ljust(layout.NAMES_BYTES, b"\0")
            self._format = layout.report_format(len(self._values))


def _new_page(path: Path) -> mmap.mmap:
    path.unlink(missing_ok=True)  # of a process of the same number before
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, layout.PAGE_BYTES)  # where there is no room, now is the time to be told
        return mmap.mmap(fd, layout.PAGE_BYTES)
    finally:
        os.close(fd)


def _float(value: Any, otherwise: float) -> float:
    try:
        return float(value)
    except Exception:
        return otherwise


def _int(value: Any, otherwise: int) -> int:
    try:
        number = int(value)
    except Exception:
        return otherwise
    return number if -(1 << 63) < number < 1 << 63 else otherwise
