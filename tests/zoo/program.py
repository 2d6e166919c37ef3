"""What the zoo knows of a program.

Every program writes a line to ``metrics.jsonl`` for each step it makes, is deterministic, ends by itself, and rests
``ZOO_REST`` seconds (none by default) after each step: so the run that is left alone is over soon, and the one that
is interrupted lasts long enough. Nothing in it knows of criu-train.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from harness import WORKLOADS

HOME = WORKLOADS / "zoo"


def python(script: str, *arguments: object) -> tuple[str, ...]:
    """The command of a Python program in tests/workloads/zoo."""
    return (sys.executable, str(HOME / script), *map(str, arguments))


def shell(script: str, *arguments: object) -> tuple[str, ...]:
    """The command of a shell script in tests/workloads/zoo; it finds the interpreter as $PYTHON."""
    return ("env", f"PYTHON={sys.executable}", "bash", str(HOME / script), *map(str, arguments))


@dataclass(frozen=True, kw_only=True)
class Program:
    """``what``: in the words of the table. ``lines``: of metrics.jsonl in the end."""

    name: str  # short, for test names and the command line: torch-spawn
    what: str
    family: str
    command: tuple[str, ...]
    lines: int
    rest_s: float = 0.1  # after each step, where it is interrupted
    varying: tuple[str, ...] = ()  # paths whose bytes tell the time or a PID, and are not compared
    same_output: bool = True  # whether what it prints is compared
    beside: tuple[str, ...] = ()  # a server outside of the tree: prints its port; {port} in the command
    options: tuple[str, ...] = ()  # of criu-train run; then ``why`` says what for
    why: str = ""
    refused: str = ""  # words of the reason, for a program that can't be carried
