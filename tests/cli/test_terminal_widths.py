"""Real commands on terminals of 40, 80 and 200 columns, with and without colours."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from harness import criu_train
from store_samples import FILES, PACK, add
from terminals import ESCAPES, Terminal, surroundings

from criu_train.store.store import Store

WIDTHS = (40, 80, 200)
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;5;\d+|38;2;[\d;]+)(?:;\d+)*m")
COMMANDS = [
    ("snapshot", "list"),
    ("snapshot", "show", "latest"),
    ("snapshot", "verify", "--all"),
    ("snapshot", "diff", "1", "2"),
    ("status",),
]
ID = re.compile(r"\d{8}T\d{6}Z-\d{6}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create_or_open(tmp_path / ".criu-train")
    damaged = add(store, step=1200, metrics={"loss": 0.5}, command=("python", "train.py", "--lr", "0.1"))
    (damaged.path / PACK).write_bytes(FILES[PACK][:-1])
    newest = add(store, step=2400, metrics={"loss": 0.25}, notes=("not saved: /data/a/file/with/a/long/name",))
    store.layout.supervisor.write_text(json.dumps({"state": "finished", "last_snapshot": newest.id, "run": "run-1"}))
    return store


def shown(tmp_path: Path, command: tuple[str, ...], columns: int, **more: str) -> Terminal:
    with Terminal(criu_train(*command), columns=columns, env=surroundings(**more), cwd=tmp_path) as terminal:
        assert terminal.read_all() in (0, 1)
    return terminal


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_table_is_wider_than_the_terminal_and_no_id_is_broken(
    store: Store, tmp_path: Path, command: tuple[str, ...], columns: int
) -> None:
    ids = [one.id for one in store.snapshots()]
    terminal = shown(tmp_path, command, columns)
    longest = max(terminal.lines, key=len)
    # A path without a blank in it is not ours to break, so that it can be copied.
    assert len(longest) <= columns or len(longest.split()[-1]) > columns // 2, longest
    begun = [word for word in re.findall(r"\d{8}T\S*", terminal.text) if "/" not in word]
    assert all(ID.match(word) for word in begun), begun
    assert any(one in terminal.text for one in ids)


@pytest.mark.parametrize(
    ("more", "on_terminal"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False)],
    ids=["plain", "NO_COLOR", "dumb", "both"],
)
def test_colours_are_for_terminals_that_have_and_want_them(
    store: Store, tmp_path: Path, more: dict[str, str], on_terminal: bool
) -> None:
    raw = shown(tmp_path, ("snapshot", "list"), 120, **more).raw
    assert bool(COLOUR.search(raw)) is on_terminal, raw
    if more.get("TERM") == "dumb":
        assert "\x1b" not in raw


@pytest.mark.parametrize(
    ("command", "force"),
    [
        *((command, False) for command in (*COMMANDS, ("run", "--help"), ("run",), ("snapshot", "show", "nope"))),
        (("snapshot", "list"), True),
        (("snapshot", "verify"), True),
    ],
)
def test_what_is_piped_has_no_escape_codes_unless_they_are_asked_for(
    store: Store, tmp_path: Path, command: tuple[str, ...], force: bool
) -> None:
    env = surroundings(**({"FORCE_COLOR": "1"} if force else {}))
    told = subprocess.run(
        criu_train(*command), env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    text = told.stdout + told.stderr
    assert text
    if not force:
        assert "\x1b" not in text
    elif command == ("snapshot", "list"):
        assert COLOUR.search(text)
    # Asked for are colours, never movements: nothing is drawn over in a pipe.
    assert not [code for code in ESCAPES.findall(text) if not re.fullmatch(r"\x1b\[[\d;]*m", code)]


def test_a_bar_is_drawn_on_terminals_alone_and_goes_away(store: Store, tmp_path: Path) -> None:
    assert "\x1b[2K" in shown(tmp_path, ("snapshot", "verify", "latest"), 80).raw
    assert "\x1b[2K" not in shown(tmp_path, ("snapshot", "verify", "latest"), 80, TERM="dumb").raw
