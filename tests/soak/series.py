"""Values over time, and whether they grow where they should stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median

from soak.sampling import Reading

# The beginning of each life doesn't count: a process loads what it needs, and learns how large a dump is.
WARM_UP, WARM_UP_SHARE = 3, 1 / 3
# Fewer samples than that say nothing of where they go.
ENOUGH = 4


@dataclass(frozen=True)
class Point:
    """``at``: seconds since the beginning; ``dumps``: how many there had been."""

    at: float
    dumps: int
    life: str
    value: float


@dataclass
class Series:
    """``tolerated``: by how much a life may grow from the median of its first half to that of its second."""

    name: str
    tolerated: float = 0.0
    points: list[Point] = field(default_factory=list)

    def add(self, at: float, dumps: int, reading: Reading) -> None:
        self.points.append(Point(at, dumps, reading.life, reading.value))

    @property
    def lives(self) -> list[list[Point]]:
        """Each once it is warm, those too short to tell left out."""
        in_order = sorted(self.points, key=lambda point: (point.life, point.at))
        whole = [list(points) for _, points in groupby(in_order, key=lambda point: point.life)]
        warm = (points[max(WARM_UP, int(WARM_UP_SHARE * len(points))) :] for points in whole)
        return [points for points in warm if len(points) >= ENOUGH]

    @property
    def growth(self) -> float:
        """The most that a life has grown; below 0 when all have shrunk."""
        return max((middle(second) - middle(first) for first, second in map(halves, self.lives)), default=0.0)

    @property
    def flat(self) -> bool:
        return self.growth <= self.tolerated


def middle(points: Sequence[Point]) -> float:
    return median(point.value for point in points)


def halves(points: Sequence[Point]) -> tuple[Sequence[Point], Sequence[Point]]:
    """The one in the middle of an odd number belongs to neither."""
    half = len(points) // 2
    return points[:half], points[-half:]


def table(several: Sequence[Series]) -> str:
    """In Markdown: what each came to in the first and in the second half of the soak, and the most that a life grew."""
    lines = [
        "| | first half: least, median, most | second half | most that a life grew | tolerated |",
        "|---|---|---|---|---|",
    ]
    for one in several:
        cells = (one.name, *map(spread, halves(one.points)), f"{one.growth:.3g}", f"{one.tolerated:g}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(points: Sequence[Point]) -> str:
    values = [point.value for point in points]
    return f"{min(values):.4g}, {median(values):.4g}, {max(values):.4g}" if values else "-"
