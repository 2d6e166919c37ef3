"""Writes the table of docs/reliability.md from what a soak has seen: ``report.py DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- written by scripts/soak -->", "<!-- end of the soak -->"


def main(directory: Path) -> None:
    table = directory / "table.md"
    if not table.exists():
        sys.exit("the soak came to no end: docs/reliability.md stays as it is")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n\n" + table.read_text() + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
