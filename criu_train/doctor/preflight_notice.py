"""One thing seen at one place: what the rules of preflight yield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from criu_train.criu.failures import FAILURES

Level = Literal["blocks", "warns", "fine"]

_BY_NAME = {failure.name: failure for failure in FAILURES}


@dataclass(frozen=True)
class Notice:
    """``place``: where, as people find it again; ``count``: how many, for what is fine."""

    level: Level
    what: str
    why: str
    tip: str = ""
    place: str = ""
    count: int = 1


def fine(what: str, why: str, *, place: str = "", count: int = 1) -> Notice:
    """Noticed, and carried."""
    return Notice("fine", what, why, place=place, count=count)


def blocks(name: str, why: str, place: str, *blanks: object) -> Notice:
    """What a dump would fail with, in the words in which it would be explained (a row of ``criu/failures.py``)."""
    failure = _BY_NAME[name]
    return Notice("blocks", failure.what.format(*blanks), why, failure.tip.format(*blanks), place)
