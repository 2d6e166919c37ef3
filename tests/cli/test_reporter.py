"""What ``run`` tells, on terminals of all widths."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.text import Text

from criu_train.cli import reporter as module
from criu_train.cli.console import line
from criu_train.supervisor.restoring import Attempt

IDS = [f"20261122T05394{number}Z-00000{number}" for number in (1, 2)]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(columns: int) -> Console:
    return Console(file=Screen(), width=columns, color_system=None)


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, Screen)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_snapshots_tried_are_told_without_breaking_an_id(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "errors", console := screen(columns))
    reason = "corrupt: pages.index has 6 bytes instead of 70000"
    module.print_attempts(
        [Attempt(IDS[1], reason, "check the disk; `criu-train snapshot verify`"), Attempt(IDS[0], None)]
    )
    lines = shown(console)
    assert all(any(one in text for text in lines) for one in IDS)
    assert max(map(len, lines)) <= columns
    words = re.sub(r"[│┃\s]+", " ", " ".join(lines))
    for word in (*reason.split(), "restored", "verify`"):
        assert word in words


@pytest.mark.parametrize("columns", [30, 40, 80])
def test_a_line_breaks_between_words_and_loses_none(columns: int) -> None:
    text = (
        f"criu-train: restored {IDS[0]}, taken 8 seconds ago; /a/path/of/more/than/forty/characters/in/one/piece kept"
    )
    line(console := screen(columns), Text(text))
    assert " ".join(shown(console)) == text
    assert all(len(one) <= columns or " " not in one for one in shown(console))


def test_what_is_no_terminal_gets_the_line_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=20, color_system=None)
    line(console, Text("a line of more than twenty characters"))
    assert console.file.getvalue() == "a line of more than twenty characters\n"  # type: ignore[attr-defined]
