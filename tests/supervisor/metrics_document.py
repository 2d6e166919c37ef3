"""The table of docs/monitoring.md, made from the one in criu_train/supervisor/metrics.py; run it to write it."""

from __future__ import annotations

from itertools import dropwhile
from pathlib import Path

from criu_train.supervisor.metrics import TABLE, Durations

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "monitoring.md"
_HEAD = "| metric | type | labels | meaning |\n|---|---|---|---|\n"


def document() -> str:
    """The whole page with its table as it should be."""
    before, _, rest = PAGE.read_text().partition(_HEAD)
    after = "".join(dropwhile(lambda line: line.startswith("|"), rest.splitlines(keepends=True)))
    return before + table() + after


def table() -> str:
    lines = []
    for row in TABLE:
        kind, labels = ("histogram", ()) if isinstance(row, Durations) else (row.kind, row.labels)
        lines.append(f"| `{row.name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {row.meaning} |\n")
    return _HEAD + "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(document())
