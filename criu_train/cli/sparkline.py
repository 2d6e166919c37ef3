"""Numbers as a row of eight heights, one character each."""

from __future__ import annotations

from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(numbers: Sequence[float], width: int) -> str:
    """The last ``width`` of them; zero is the lowest, the largest the highest, so that heights are shares."""
    shown = numbers[-width:] if width > 0 else ()
    most = max(shown, default=0.0)
    if most <= 0:
        return _BLOCKS[0] * len(shown)
    return "".join(_BLOCKS[round((len(_BLOCKS) - 1) * max(0.0, number) / most)] for number in shown)
