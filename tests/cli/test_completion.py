"""TAB in real shells, and what they are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import ROOT
from store_samples import add
from terminals import Terminal, surroundings

from criu_train.store.store import Store

SHELLS = ("bash", "zsh", "fish")
Complete = Callable[..., list[str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Somebody's: ``criu-train`` is found there; it completes as ours does, and otherwise notes how it was called."""
    program = tmp_path / "bin" / "criu-train"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'[ -z "$_CRIU_TRAIN_COMPLETE" ] || exec env PYTHONPATH={ROOT} {sys.executable} -m criu_train\n'
        f"printf '%s\\n' \"$@\" >{tmp_path}/called.part && mv {tmp_path}/called.part {tmp_path}/called\n"
    )
    program.chmod(0o755)
    (tmp_path / "job").mkdir()
    return tmp_path


def at_home(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in surroundings().items() if not name.startswith(("XDG_", "ZDOTDIR"))}
    path = f"{home}/bin:{os.environ['PATH']}"
    return kept | {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), **more}


def ours(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "criu_train", *arguments],
        env=at_home(home, **more),
        cwd=home / "job",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(params=SHELLS)
def complete(request: pytest.FixtureRequest, home: Path) -> Iterator[Complete]:
    """Types a line with TAB in it into a new shell after ``completion install``; how criu-train was called then."""
    shell = request.param
    assert shutil.which(shell), f"{shell} is missing: scripts/test installs it"
    told = ours(home, "completion", "install", "--shell", shell)
    assert told.returncode == 0, told.stderr
    (home / ".config" / "fish").mkdir(parents=True, exist_ok=True)
    (home / ".config" / "fish" / "config.fish").write_text(
        "function fish_prompt; echo 'ready> '; end\nset -g fish_greeting\n"
    )
    with Terminal([shell, "-i"], env=at_home(home, PS1="ready> "), cwd=home / "job") as terminal:
        if shell != "fish":
            terminal.type("PS1='ready''> '\n")
        terminal.read_until("ready> ")

        def by_typing(line: str) -> list[str]:
            called = home / "called"
            called.unlink(missing_ok=True)
            terminal.type(line + "\r")
            terminal.read_while(lambda: not called.exists())
            assert called.exists(), terminal.text
            return called.read_text().splitlines()

        yield by_typing


@pytest.mark.slow
def test_tab_completes_commands_options_and_snapshots(complete: Complete, home: Path) -> None:
    one = add(Store.create_or_open(home / "job" / ".criu-train"), step=1200, metrics={"loss": 0.5})
    other = add(Store.create_or_open(home / "other"), step=7, metrics={"val.accuracy": 0.5})
    assert complete("criu-train snap\tsho\t2\t") == ["snapshot", "show", one.id]
    assert complete("criu-train restore --be\tlo\t") == ["restore", "--best", "loss"]
    assert complete("criu-train snapshot show @s\t") == ["snapshot", "show", "@step:1200"]
    assert complete("criu-train snapshot show @best:\t") == ["snapshot", "show", "@best:loss"]
    assert complete("criu-train snapshot show lat\t") == ["snapshot", "show", "latest"]
    named = complete("criu-train --store ../oth\t snapshot verify @b\t")
    assert [part.rstrip("/") for part in named] == ["--store", "../other", "snapshot", "verify", "@best:val.accuracy"]
    assert complete("criu-train --store ../other/ snapshot diff 1\t 2\t") == [
        "--store", "../other/", "snapshot", "diff", "1", other.id,
    ]  # fmt: skip


def answers(home: Path, line: str, **more: str) -> list[tuple[str, str]]:
    """What zsh is told: values and help."""
    told = subprocess.run(
        [sys.executable, "-m", "criu_train"],
        env=at_home(
            home, _CRIU_TRAIN_COMPLETE="zsh_complete", COMP_WORDS=line, COMP_CWORD=str(len(line.split(" ")) - 1), **more
        ),
        cwd=home / "job",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (told.returncode, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    return list(zip(lines[1::3], lines[2::3], strict=True))


def test_snapshots_are_offered_newest_first_with_step_and_age(home: Path) -> None:
    store = Store.create_or_open(home / "job" / ".criu-train")
    first, second = add(store, step=10), add(store, step=20, metrics={"loss": 1.0})
    assert answers(home, "criu-train snapshot show ") == [
        ("latest", f"{second.id}, step 20, just now"),
        (second.id, "step 20, just now"),
        (first.id, "step 10, just now"),
        ("@step\\:", "the last one up to a step"),
        ("@best\\:", "the best one by a metric"),
    ]
    assert [value for value, _ in answers(home, "criu-train snapshot show latest")] == ["latest", "latest~1"]
    assert [value for value, _ in answers(home, "criu-train restore --at-step ")] == ["20", "10"]
    assert [value for value, _ in answers(home, "criu-train snapshot show 1")] == ["1"]


def test_one_that_is_named_already_is_not_offered_again(home: Path) -> None:
    store = Store.create_or_open(home / "job" / ".criu-train")
    first, second = add(store), add(store)
    assert [value for value, _ in answers(home, f"criu-train snapshot delete {second.id} 2")] == [first.id]


def test_the_store_may_be_named_by_a_variable_or_a_file(home: Path) -> None:
    one = add(Store.create_or_open(home / "elsewhere"))
    assert answers(home, "criu-train snapshot show 2") == []
    by_variable = answers(home, "criu-train snapshot show 2", CRIU_TRAIN_STORE=str(home / "elsewhere"))
    (home / "job" / "criu-train.toml").write_text('store = "../elsewhere"\n')
    assert [value for value, _ in by_variable] == [one.id]
    assert answers(home, "criu-train snapshot show 2") == by_variable


@pytest.mark.parametrize("wrong", ["store.json", "snapshots", "manifest", "config", "rights"])
def test_a_store_that_is_broken_offers_nothing_and_says_nothing(home: Path, wrong: str) -> None:
    store = Store.create_or_open(home / "job" / ".criu-train")
    one = add(store)
    if wrong == "store.json":
        store.layout.config.write_text("{")
    elif wrong == "snapshots":
        shutil.rmtree(store.layout.snapshots)
        store.layout.snapshots.write_text("")
    elif wrong == "manifest":
        (one.path / "manifest.json").write_text("[")
    elif wrong == "config":
        (home / "job" / "criu-train.toml").write_text("store = [")
    else:
        store.layout.root.chmod(0o777)
    offered = [value for value, _ in answers(home, "criu-train snapshot show 2")]
    assert offered == ([one.id] if wrong in ("manifest", "config") else [])


def test_installing_again_changes_nothing_and_keeps_what_was_there(home: Path) -> None:
    (home / ".bashrc").write_text("alias ll='ls -l'")
    first = ours(home, "completion", "install", SHELL="/usr/bin/bash")
    after = (home / ".bashrc").read_text()
    again = ours(home, "completion", "install", SHELL="/usr/bin/bash")
    assert (first.returncode, again.returncode) == (0, 0)
    assert (home / ".bashrc").read_text() == after
    assert after.splitlines()[0] == "alias ll='ls -l'" and len(after.splitlines()) == 2


def test_a_shell_that_is_not_known_is_refused_with_those_that_are(home: Path) -> None:
    told = ours(home, "completion", "install", SHELL="/bin/tcsh")
    assert told.returncode == 2
    assert "tcsh" in told.stderr and "--shell bash, zsh or fish" in told.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [("criu-train ", "report"), ("criu-train run --ev", "--every"), ("criu-train snapshot show ", "latest")],
)
def test_completing_loads_nothing_that_draws_or_trains(home: Path, line: str, offered: str) -> None:
    """By what is loaded, as times depend on the machine."""
    add(Store.create_or_open(home / "job" / ".criu-train"))
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "criu_train"],
        env=at_home(home, _CRIU_TRAIN_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD="3"),
        cwd=home / "job",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert f"plain,{offered}" in told.stdout
    loaded = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    heavy = {"rich", "asyncio", "psutil", "numpy", "cryptography", "google", "blake3._blake3", "criu_train.supervisor"}
    assert not {name for name in loaded if name in heavy or name.split(".")[0] in heavy}
