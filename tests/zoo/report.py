"""Writes docs/workloads.md from what came of the programs: ``report.py DIRECTORY``, one file a program.

What came of each is kept in results.json beside this, so the table can be renewed piece by piece.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import ROOT, tell

from criu_train.units import format_size
from zoo.catalog import PROGRAMS
from zoo.interrupt import KILLS, Outcome
from zoo.program import Program

PAGE = ROOT / "docs" / "workloads.md"
RESULTS = Path(__file__).with_name("results.json")
NOT_RUN = "not run in this form yet"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def page(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    """The lines of the page."""
    criu = tell("doctor", "--json", cwd=ROOT).json()["criu"]["version"]
    carried = sum(one.verdict.startswith("carried") for one in outcomes.values())
    yield "# What it carries"
    yield ""
    yield "Written by `scripts/zoo`, which runs every program below: once undisturbed, and once under criu-train, where"
    yield f"everything is killed {KILLS} times, a little after a snapshot, and the run is ended by SIGTERM once more."
    yield "*Carried bit for bit*: every file that it leaves, and what it prints, are those of the undisturbed run, byte"
    yield "for byte (databases: row for row), and preflight had foreseen nothing else. No program was changed for it;"
    yield "they are in `tests/workloads/zoo`, their commands in `tests/zoo`."
    yield ""
    kernel = platform.release().partition("-")[0]
    yield f"{carried} of {len(PROGRAMS)} are carried. Python {platform.python_version()}, kernel {kernel},"
    yield f"CRIU {criu}, {versions()}."
    for family in dict.fromkeys(program.family for program in PROGRAMS):
        yield from ("", f"## {family}", "")
        yield "| program | | tasks | memory | snapshot | longest pause |"
        yield "|---|---|---|---|---|---|"
        yield from (row(program, outcomes[program.name]) for program in PROGRAMS if program.family == family)
    if told := [program for program in PROGRAMS if program.why]:
        yield from ("", "## Options, and what is not compared", "")
        yield from (f"- `{program.name}`: {program.why}" for program in told)


def row(program: Program, outcome: Outcome) -> str:
    what = f"| {program.what} (`{program.name}`) | {outcome.verdict} |"
    if not outcome.tasks:
        return f"{what} | | | |"
    sizes = f"{format_size(outcome.memory_bytes)} | {format_size(outcome.stored_bytes)}"
    return f"{what} {outcome.tasks} | {sizes} | {outcome.frozen_time_us / 1000:.0f} ms |"


def versions() -> str:
    """The frameworks of the requirements, as they are installed."""
    names = [line.partition("==")[0] for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in [*names, "xgboost"])


def main(directory: Path) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known |= {path.stem: json.loads(path.read_text()) for path in directory.glob("*.json")}
    known = {program.name: known[program.name] for program in PROGRAMS if program.name in known}
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    outcomes = {program.name: Outcome(**known.get(program.name, {"verdict": NOT_RUN})) for program in PROGRAMS}
    PAGE.write_text("\n".join(page(outcomes)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
