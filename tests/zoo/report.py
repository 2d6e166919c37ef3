"""Runs the zoo and writes what came of it: ``docs/workloads.md``.

python tests/zoo/report.py [NAME...]   (with names: these alone; of the others the table tells what came of them last)
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import ROOT, tell

from criu_train.units import format_size
from zoo.catalog import PROGRAMS
from zoo.interrupt import Outcome, tried
from zoo.program import Program

KILLS = 3
PAGE = ROOT / "docs" / "workloads.md"
RESULTS = Path(__file__).with_name("results.json")
REQUIREMENTS = Path(__file__).with_name("requirements.txt")

Result = dict[str, Any]


def run(programs: list[Program]) -> list[Outcome]:
    """Two at a time, which share nothing but the machine."""
    with ThreadPoolExecutor(max_workers=2) as workers:
        outcomes = []
        for number, outcome in enumerate(workers.map(one, programs), 1):
            print(f"{number}/{len(programs)} {outcome.program.name}: {verdict(outcome)}", flush=True)
            outcomes.append(outcome)
    return outcomes


def one(program: Program) -> Outcome:
    """In a directory of its own, which stays where the program was not carried."""
    place = Path(tempfile.mkdtemp(prefix=f"criu-train-zoo-{program.name}-", dir="/var/tmp"))
    outcome = tried(program, place, KILLS)
    if not outcome.reason or program.refused:
        shutil.rmtree(place)
    return outcome


def verdict(outcome: Outcome) -> str:
    if outcome.reason:
        return f"{'refused' if outcome.program.refused else 'NOT CARRIED'}: {outcome.reason}"
    options = " ".join(outcome.program.options)
    return f"carried bit for bit{f', with `{options}`' if options else ''}"


def page(outcomes: Mapping[str, Result]) -> Iterator[str]:
    """The lines of the page."""
    criu = tell("doctor", "--json", cwd=ROOT).json()["criu"]["version"]
    carried = sum(one["verdict"].startswith("carried") for one in outcomes.values())
    yield "# What it carries"
    yield ""
    yield "Written by `scripts/zoo`, which runs every program below: once undisturbed, and once under criu-train, where"
    yield f"everything is killed {KILLS} times, a little after a snapshot, and the run is ended by SIGTERM once more."
    yield "*Carried bit for bit*: every file that it leaves, and what it prints, are those of the undisturbed run, byte"
    yield "for byte (databases: row for row). No program was changed for it; the programs are in `tests/workloads/zoo`."
    yield ""
    yield f"{carried} of {len(PROGRAMS)} are carried. Python {platform.python_version()}, kernel {platform.release()},"
    yield f"CRIU {criu}, {versions()}."
    for family in dict.fromkeys(program.family for program in PROGRAMS):
        yield from ("", f"## {family}", "")
        yield "| program | | tasks | memory | snapshot | longest pause |"
        yield "|---|---|---|---|---|---|"
        yield from (row(program, outcomes[program.name]) for program in PROGRAMS if program.family == family)
    yield from notes()


def row(program: Program, result: Result) -> str:
    what = f"| {program.what} (`{program.name}`) | {result['verdict']} |"
    if not result["tasks"]:
        return f"{what} | | | |"
    sizes = " | ".join(format_size(result[name]) for name in ("memory_bytes", "stored_bytes"))
    return f"{what} {result['tasks']} | {sizes} | {result['frozen_time_us'] / 1000:.0f} ms |"


def notes() -> Iterator[str]:
    """Why some need an option, and what of some is not compared."""
    told = [program for program in PROGRAMS if program.why]
    if told:
        yield from ("", "## Options and paths that are not compared", "")
        yield from (f"- `{program.name}`: {program.why}" for program in told)


def versions() -> str:
    """The frameworks of the requirements, as they are installed."""
    names = [line.partition("==")[0] for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in [*names, "xgboost"])


def main() -> int:
    names = sys.argv[1:]
    if unknown := set(names) - {one.name for one in PROGRAMS}:
        print(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in PROGRAMS)}")
        return 2
    outcomes = run([program for program in PROGRAMS if not names or program.name in names])
    known: dict[str, Result] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known |= {outcome.program.name: result(outcome) for outcome in outcomes}
    known = {program.name: known[program.name] for program in PROGRAMS if program.name in known}
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    if len(known) == len(PROGRAMS):
        PAGE.write_text("\n".join(page(known)) + "\n")
    else:
        print(f"{PAGE.name} is not written: {len(PROGRAMS) - len(known)} programs were never run")
    return int(any(one.reason and not one.program.refused for one in outcomes))


def result(outcome: Outcome) -> Result:
    """What is kept of an outcome."""
    kept = ("tasks", "memory_bytes", "stored_bytes", "frozen_time_us")
    return {"verdict": verdict(outcome)} | {name: getattr(outcome, name) for name in kept}


if __name__ == "__main__":
    sys.exit(main())
