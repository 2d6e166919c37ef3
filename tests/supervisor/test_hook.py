"""The action script: it waits for an answer at the cut, and lets every other moment pass."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from criu_train.supervisor.hook import prepare_hook


def run_script(directory: Path, action: str, answer: bytes | None) -> int:
    script = prepare_hook(directory)
    ask = os.open(directory / "ask", os.O_RDWR | os.O_NONBLOCK)
    reply = os.open(directory / "answer", os.O_RDWR | os.O_NONBLOCK)
    try:
        if answer is not None:
            os.write(reply, answer)
        environment = {**os.environ, "CRTOOLS_SCRIPT_ACTION": action}
        return subprocess.run([str(script)], env=environment, timeout=10, check=False).returncode
    finally:
        os.close(ask)
        os.close(reply)


def test_go_lets_the_dump_succeed(tmp_path: Path) -> None:
    assert run_script(tmp_path / "hook", "post-dump", b"go\n") == 0


def test_no_fails_the_dump(tmp_path: Path) -> None:
    assert run_script(tmp_path / "hook", "post-dump", b"no\n") != 0


@pytest.mark.parametrize("action", ["pre-dump", "network-lock", "network-unlock"])
def test_other_moments_pass_without_asking(tmp_path: Path, action: str) -> None:
    assert run_script(tmp_path / "hook", action, None) == 0


def test_a_path_with_spaces_and_quotes_works(tmp_path: Path) -> None:
    parent = tmp_path / "it's a store"
    parent.mkdir()
    assert run_script(parent / "hook", "post-dump", b"go\n") == 0
