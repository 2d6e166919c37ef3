"""Numbers as a person reads them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from criu_train.report.totals import Totals
from criu_train.units import format_duration, format_size

NOTHING = "–"  # noqa: RUF001


@dataclass(frozen=True)
class Number:
    """``value``: in seconds, bytes, shares of 1, or as it is counted; ``text``: with its unit."""

    value: float | int | None
    text: str


def numbers(totals: Totals) -> Mapping[str, Number]:
    """All of them, by name."""
    return {name: Number(value, _text(name, value)) for name, value in asdict(totals).items()}


def _text(name: str, value: float | None) -> str:
    if name.endswith("_s"):
        return duration(value)
    if name.endswith("_share"):
        return share(value)
    if name.endswith("_bytes"):
        return size(value)
    return count(value)


def duration(seconds: float | None) -> str:
    """``42 s``."""
    if seconds is None:
        return NOTHING
    return "0 s" if seconds == 0 else format_duration(seconds)


def size(number: float | None) -> str:
    """``1.5 MiB``; a snapshot may add more than memory: what the training's files hold counts as well."""
    if number is None:
        return NOTHING
    return f"-{format_size(int(-number))}" if number < 0 else format_size(int(number))


def share(part: float | None) -> str:
    """``12 %``, ``1.3 %``, ``0.04 %``: two figures that matter."""
    if part is None:
        return NOTHING
    percent = part * 100
    if 0 < abs(percent) < 0.01:
        return "< 0.01 %"
    if 99.9 < percent < 100:
        return f"{percent:.2f} %" if percent < 99.995 else "> 99.99 %"
    if percent == 0 or abs(percent) >= 99.95:
        return f"{percent:.0f} %"
    return f"{percent:.2f} %" if abs(percent) < 1 else f"{percent:.1f} %"


def count(number: float | None) -> str:
    """``12,000``, ``2.5``."""
    if number is None:
        return NOTHING
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.4g}"


def command(words: Sequence[str]) -> str:
    """As it would be typed."""
    return shlex.join(words)


def metric(number: float) -> str:
    """Six figures, as they are printed elsewhere."""
    return f"{number:.6g}"


def moment(seconds: float) -> str:
    """A time since 1970 where the reader of the store is, with the zone: reports travel."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def elapsed(seconds: float) -> str:
    """Hours, minutes and seconds since the run began: ``0:03:07``, of months ``41d 2:15:09``."""
    days, rest = divmod(int(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}d {clock}" if days else clock
