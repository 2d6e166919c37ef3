"""Durations, sizes and times, as people write them and as they like to read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "b": 1} | {
    spelling: base**power
    for power, letter in enumerate("kmgt", start=1)
    for spelling, base in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII | re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds in ``90s``, ``30m``, ``2h``, ``1d`` or plain ``45``; raises ValueError."""
    return _parse(text, _SECONDS, "duration", "90s, 30m, 2h or 1d")


def parse_size(text: str) -> int:
    """Bytes in ``500M``, ``2G``, ``1GiB`` (powers of 1024), ``1GB`` (of 1000) or plain ``123``; raises ValueError."""
    return int(_parse(text, _BYTES, "size", "500M, 2G or 1GiB"))


def parse_share(text: str) -> float:
    """``1%`` or ``0.01``: more than nothing and less than all; raises ValueError."""
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if number != text.strip() else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"{text!r} is not a share; write it like 1% or 0.01")
    return share


def _parse(text: str, units: dict[str, int], kind: str, examples: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{text!r} is not a {kind}; write it like {examples}")
    return float(match[1]) * units[match[2].lower()]


def format_duration(seconds: float) -> str:
    """``3.2 ms``, ``1.50 s``, ``42 s``, ``2m 5s``, ``3h 20m``, ``2d 4h``: two figures that matter, no more."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, unit, smaller, smaller_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count}{unit} {rest // smaller}{smaller_unit}" if rest // smaller else f"{count}{unit}"
    raise AssertionError("unreachable: whole >= 60")


def format_size(size: int) -> str:
    """``512 B``, ``1.5 KiB``, ``23.0 GiB``."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def utc_now_iso() -> str:
    """The time now as ``2026-11-21T20:45:12Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now_iso_ms() -> str:
    """The time now as ``2026-11-21T20:45:12.345Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_until(iso: str) -> float:
    """From now until a time in ISO 8601; 0 when it is past."""
    return max(0.0, (datetime.fromisoformat(iso) - datetime.now(UTC)).total_seconds())


def ago(iso: str, *, now: datetime | None = None) -> str:
    """How far a time lies from now: ``just now``, ``3 minutes ago``, ``in 2 hours`` (a clock that was set back)."""
    passed = ((now or datetime.now(UTC)) - datetime.fromisoformat(iso)).total_seconds()
    distance = abs(passed)
    if distance < 5:
        return "just now"
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if distance >= size:
            count = int(distance // size)
            words = f"{count} {unit}{'s' if count > 1 else ''}"
            return f"{words} ago" if passed > 0 else f"in {words}"
    raise AssertionError("unreachable: distance >= 5")
