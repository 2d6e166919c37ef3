"""The table of snapshots, laid out here: a library's tables take seconds for a thousand rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from criu_train.cli.console import line
from criu_train.cli.snapshot_view import (
    NOTHING,
    PROVEN,
    STATUS,
    added,
    count,
    epoch,
    local_time,
    loss,
    pause,
    status_word,
)
from criu_train.store.manifest import Summary
from criu_train.store.snapshot import Listed
from criu_train.units import ago, format_size

_GAP = 2
_DIM = "dim"


@dataclass(frozen=True)
class _Column:
    header: str
    importance: int  # the least important ones go first where the terminal is narrow
    cells: Sequence[str]
    right: bool = False
    styles: Sequence[str] = ()  # one a cell, or none

    @property
    def width(self) -> int:
        return max(len(self.header), *map(len, self.cells))

    def rows(self) -> Iterator[tuple[str, str]]:
        """Each cell as wide as the column, the header first, and its style."""
        styles = ("bold", *(self.styles or [""] * len(self.cells)))
        width, adjust = self.width, str.rjust if self.right else str.ljust
        for cell, style in zip((self.header, *self.cells), styles, strict=True):
            yield adjust(cell, width), style


def print_snapshots(snapshots: Sequence[Listed], console: Console) -> None:
    """A table, newest last, and a line for each snapshot that is not simply complete.

    Drops columns rather than break lines where the terminal is narrow; what is not a terminal gets all of them.
    """
    columns = _columns(snapshots)
    while console.is_terminal and _width(columns) > console.width and len(columns) > 1:
        columns.remove(min(columns, key=lambda column: column.importance))
    room = console.width if console.is_terminal else _width(columns)
    console.print(Segments(_segments(columns, room)), end="", crop=False)
    remarks = [remark for one in snapshots if (remark := _remark(one))]
    if remarks:
        console.print()
    for remark in remarks:
        line(console, remark)


def _columns(snapshots: Sequence[Listed]) -> list[_Column]:
    def facts(tell: Callable[[Summary], str]) -> list[str]:
        return [tell(one.manifest) if one.manifest else NOTHING for one in snapshots]

    columns = [
        _Column("ID", 9, [one.id for one in snapshots]),
        _Column("Time", 2, [local_time(one.created_at) for one in snapshots]),
        _Column("", 7, [ago(one.created_at) for one in snapshots], styles=[_DIM] * len(snapshots)),
        _Column(
            "Status",
            8,
            [STATUS[one.status][0] for one in snapshots],
            styles=[STATUS[one.status][1] for one in snapshots],
        ),
        _Column("Trial restore", 3, [PROVEN[one.proven] for one in snapshots]),
        _Column("Trigger", 4, facts(lambda manifest: manifest.trigger)),
        _Column("Step", 3, facts(lambda manifest: count(manifest.step)), right=True),
        _Column("Epoch", 3, facts(lambda manifest: epoch(manifest.metrics)), right=True),
        _Column("Loss", 3, facts(lambda manifest: loss(manifest.metrics)), right=True),
        _Column("Pause", 6, facts(lambda manifest: pause(manifest.frozen_time_us)), right=True),
        _Column("Memory", 1, facts(lambda manifest: format_size(manifest.memory_bytes)), right=True),
        _Column("Stored", 4, facts(lambda manifest: format_size(manifest.stored_bytes)), right=True),
        _Column("Added", 5, facts(lambda manifest: added(manifest.added_bytes)), right=True),
    ]
    unused = {
        "Step": all(one.manifest is None or one.manifest.step is None for one in snapshots),
        "Epoch": all(one.manifest is None or "epoch" not in one.manifest.metrics for one in snapshots),
        "Loss": all(one.manifest is None or loss(one.manifest.metrics) == NOTHING for one in snapshots),
        "Trial restore": all(one.proven is None for one in snapshots),
    }
    return [column for column in columns if not unused.get(column.header)]


def _width(columns: Sequence[_Column]) -> int:
    return sum(column.width + _GAP for column in columns)


def _segments(columns: Sequence[_Column], room: int) -> Iterator[Segment]:
    """A line a row, cut where the room ends; what needs no style is one segment with its neighbours."""
    styles = {name: Style.parse(name) for name in ("bold", _DIM, *dict(STATUS.values()).values())}
    plain = ""
    for row in zip(*(column.rows() for column in columns), strict=True):
        left = room
        for cell, style in row:
            shown = cell[:left]
            gap = " " * min(_GAP, left - len(shown))
            left -= len(shown) + len(gap)
            if not style:
                plain += shown + gap
                continue
            yield Segment(plain)
            yield Segment(shown, styles[style])
            plain = gap
        plain += "\n"
    yield Segment(plain)


def _remark(one: Listed) -> Text | None:
    if one.reason:
        return Text.assemble(f"{one.id}  ", status_word(one.status), f": {one.reason}")
    if one.abandoned:
        return Text(f"{one.id}  abandoned: the training went on from an older snapshot", style=_DIM)
    return None
