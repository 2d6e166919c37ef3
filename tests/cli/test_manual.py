"""The manual page: it says what the help says, and is sound."""

from __future__ import annotations

import shutil
import subprocess
import tomllib

import pytest
from harness import ROOT

from criu_train.cli.manual import date_of, page

PAGE = ROOT / "man" / "criu-train.1"


def test_the_page_is_as_current_as_the_help() -> None:
    written = PAGE.read_text()
    date = date_of(written)
    assert date is not None
    assert written == page(date), "run scripts/man"


@pytest.mark.slow
@pytest.mark.parametrize("checker", [("mandoc", "-Tlint"), ("groff", "-ww", "-man", "-Tutf8")])
def test_readers_of_manual_pages_have_nothing_to_complain_of(checker: tuple[str, ...]) -> None:
    assert shutil.which(checker[0]), f"{checker[0]} is missing: scripts/test installs it"
    told = subprocess.run([*checker, str(PAGE)], capture_output=True, text=True, timeout=30, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("CRIU-TRAIN(1)" if checker[0] == "groff" else "")


def test_an_installed_project_has_the_page() -> None:
    """As pip installs it: where `man` looks, beside the program."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["data-files"] == {"share/man/man1": ["man/criu-train.1"]}
