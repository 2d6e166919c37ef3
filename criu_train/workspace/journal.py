"""Reading the journals that init writes: who did what to which path, and when each cell lived.

What the last instants before a SIGKILL did is not in a journal. For that, a change time that lies within a cell's
life, while the journal is silent about the path, counts as the tree's doing: ``Evidence.verdict``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from criu_train.workspace.listing import SETTLED_NS

OURS_MADE, OURS_WROTE, OURS_GONE = 1, 2, 4
OTHER_MADE, OTHER_WROTE, OTHER_GONE = 8, 16, 32
OURS = OURS_MADE | OURS_WROTE | OURS_GONE
OTHER = OTHER_MADE | OTHER_WROTE | OTHER_GONE

Who = Literal["ours", "other", "unknown"]

_FLAGS = {
    ("ours", "make"): OURS_MADE,
    ("ours", "write"): OURS_WROTE,
    ("ours", "attrib"): OURS_WROTE,
    ("ours", "gone"): OURS_GONE,
    ("other", "make"): OTHER_MADE,
    ("other", "write"): OTHER_WROTE,
    ("other", "attrib"): OTHER_WROTE,
    ("other", "gone"): OTHER_GONE,
}
# Init shows a sign of life four times a second; a busy machine may hold it up.
_AFTER_LAST_SIGN_NS = 1_000_000_000
# After a power cut the journal's time on disk is as old as the filesystem's last commit.
_AFTER_POWER_CUT_NS = 120_000_000_000


@dataclass(frozen=True)
class Journals:
    """The journals from a cut on, oldest first; of the first only what lies behind ``offset``."""

    paths: tuple[Path, ...]
    offset: int

    @classmethod
    def since(cls, directory: Path, first: str, offset: int) -> Journals:
        """Those in ``directory`` named ``first`` and later ones."""
        names = sorted(path for path in directory.glob("*.jsonl") if path.name >= first)
        return cls(tuple(names), offset if names and names[0].name == first else 0)


@dataclass
class Evidence:
    """What is known about paths. ``lives``: spans of time (ns) in which cells were alive.

    ``trusted`` is False when something may have gone unnoticed for longer than an instant.
    """

    flags: dict[str, int] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)  # that the tree made
    lives: list[tuple[int, int]] = field(default_factory=list)
    trusted: bool = True

    def add(self, record: dict[str, Any]) -> str | None:
        """Take in one line of a journal; returns the path it speaks of."""
        path = record.get("path")
        if path is None:
            if "overflow" in record["what"] or record.get("watched") is False:
                self.trusted = False
            return None
        who, bits = record["who"], 0
        for what in record["what"]:
            bits |= _FLAGS[who, what]
        self.flags[path] = self.flags.get(path, 0) | bits
        if bits & OURS_MADE and record.get("dir"):
            self.directories.add(path)
        return str(path)

    def recall(self, path: str, bits: int) -> None:
        """Take over what was found out before, unless the journals know better."""
        if not self.flags.get(path, 0):
            self.flags[path] = bits

    def about(self, path: str, inherit_ours: int, inherit_other: int) -> int:
        """Flags of the path itself; where it has none, those of the nearest directory above that was made or gone."""
        own = self.flags.get(path, 0)
        above = path
        while not own and (cut := above.rfind("/")) > 0:
            above = above[:cut]
            own = self.flags.get(above, 0) & (inherit_ours | inherit_other)
        return own

    def lived(self, when_ns: int) -> bool:
        """Whether a cell was alive then."""
        return any(start <= when_ns <= end for start, end in self.lives)

    def verdict(self, path: str, changed_ns: int | None) -> Who:
        """Who made, changed or removed this path; ``changed_ns``: its change time (its directory's when it is gone)."""
        bits = self.about(path, OURS_MADE | OURS_GONE, OTHER_MADE | OTHER_GONE)
        if bits & OURS:
            return "ours"
        if bits & OTHER:
            return "other"
        return "ours" if changed_ns is not None and self.lived(changed_ns) else "unknown"


def gather(journals: Journals, cut_ns: int) -> Evidence:
    """Everything the journals tell since the cut."""
    evidence = Evidence()
    boot, boot_ns = boot_id(), _boot_time_ns()
    for number, path in enumerate(journals.paths):
        head = next(read_records(path, 0), None)
        if head is not None and "at" in head:
            start = max(int(head["at"]), cut_ns) - SETTLED_NS
            seen = path.stat().st_mtime_ns
            rebooted = head.get("boot") != boot
            end = min(seen + _AFTER_POWER_CUT_NS, boot_ns) if rebooted else seen + _AFTER_LAST_SIGN_NS
            evidence.lives.append((start, max(end, seen)))
            evidence.add(head)
        for record in read_records(path, journals.offset if number == 0 else 0):
            evidence.add(record)
    return evidence


def read_records(path: Path, offset: int) -> Iterator[dict[str, Any]]:
    """Whole lines from ``offset`` on; a torn or garbled one is passed over."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                record = _parse(line)
                if record is not None:
                    yield record
    except FileNotFoundError:
        return


class JournalReader:
    """Follows the journal of a living cell."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def news(self) -> Iterable[dict[str, Any]]:
        """What was written since the last call; a line that is not whole yet waits for the next."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [record for line in whole.splitlines() if (record := _parse(line)) is not None]


def boot_id() -> str:
    """Changes with every boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("what"), list) else None


def _boot_time_ns() -> int:
    with open("/proc/stat") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("btime ")) * 1_000_000_000


def parent(path: str) -> str:
    """The directory that holds it."""
    return os.path.dirname(path)  # noqa: PTH120
