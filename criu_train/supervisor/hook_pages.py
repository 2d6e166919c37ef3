"""What the page of one process that uses hooks says; it is a stranger's word."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field

from criu_train.hooks import layout
from criu_train.progress.line import Told

_WORDS = struct.Struct("=6Q")


@dataclass(frozen=True)
class MemberState:
    """What a page tells. ``reports``: how many there were; ``waiting``: the generation plus one, in ``checkpoint``;
    ``staying``: the same, where it stays there until the snapshot is complete.

    ``parked``, ``ready``: rounds. ``digest``: hexadecimal, made in the generation ``digested`` minus one.
    """

    reports: int = 0
    step: int | None = None
    told: Told = field(default_factory=Told)
    waiting: int = 0
    parked: int = 0
    ready: int = 0
    digested: int = 0
    digest: str = ""
    staying: int = 0

    @property
    def position(self) -> int:
        """The step; where none is ever told, how many reports there were."""
        return self.reports if self.step is None else self.step

    @classmethod
    def read(cls, page: bytes) -> MemberState:
        """Whatever the page holds; what makes no sense is not told."""
        magic, *words = _WORDS.unpack_from(page)
        if magic != layout.MAGIC:
            return cls()
        waiting, parked, ready, digested, staying = words
        reports, step, told = 0, None, Told()
        if (report := layout.read_report(page)) is not None:
            reports, number, epoch, values = report
            step = None if number == layout.UNKNOWN_STEP else number
            metrics = {name: value for name, value in zip(_names(page), values, strict=False) if math.isfinite(value)}
            told = Told(step, epoch if math.isfinite(epoch) else None, metrics)
        digest = layout.text_at(page, layout.DIGEST, layout.DIGEST_BYTES + 1)[: layout.DIGEST_BYTES]
        return cls(reports, step, told, waiting, parked, ready, digested, digest, staying)


def _names(page: bytes) -> list[str]:
    try:
        names = json.loads(layout.text_at(page, layout.NAMES, layout.NAMES_BYTES))
    except (ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
