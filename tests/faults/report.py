"""Writes the table of docs/reliability.md from what came of the cases: ``report.py DIRECTORY``, one file a case.

What came of each is kept in results.json beside this, so the table can be renewed piece by piece.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import ROOT

from criu_train.moments import DUMP, RESTORE
from faults.disasters import NAMED
from faults.test_crius_own import IN_DUMPS, IN_RESTORES

PAGE = ROOT / "docs" / "reliability.md"
RESULTS = Path(__file__).with_name("results.json")
BEGIN, END = "<!-- written by scripts/faults -->", "<!-- end -->"
SHORT = {"unharmed": "·", "restored from snapshot 1": "1", "restored from snapshot 2": "2"}


def table(outcomes: dict[str, dict[str, str]]) -> Iterator[str]:
    """The lines between the two marks."""
    for title, moments in (("dump", DUMP), ("restore", RESTORE)):
        names = [name for name in NAMED if any(f"{moment}-{name}" in outcomes for moment in moments)]
        yield from ("", f"During a {title}:", "")
        yield f"| | {' | '.join(f'`{name}`' for name in names)} |"
        yield f"|---|{'---|' * len(names)}"
        for moment in moments:
            cells = (outcomes.get(f"{moment}-{name}", {}).get("outcome", "") for name in names)
            yield f"| {moment} | {' | '.join(SHORT.get(cell, cell) for cell in cells)} |"
    yield ""
    for where, faults in (("dump", IN_DUMPS), ("restore", IN_RESTORES)):
        for number, when in faults.items():
            outcome = outcomes.get(f"{where}-criu-fault-{number}", {}).get("outcome", "not run")
            yield f"- A fault of CRIU's own in a {where}, {when} (`CRIU_FAULT={number}`): {outcome}."
    count = Counter(one["outcome"].partition(" from")[0] for one in outcomes.values())
    said = ", ".join(f"{number} {outcome}" for outcome, number in sorted(count.items()))
    yield from ("", f"{len(outcomes)} cases: {said}. All ended as the undisturbed run did, byte for byte.")


def main(directory: Path) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known |= {path.stem: json.loads(path.read_text()) for path in directory.glob("*.json")}
    RESULTS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(table(known)) + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
