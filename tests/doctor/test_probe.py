"""The probe against CRIUs that work, and against ones that fail in the ways that matter."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from criu_train.criu.find import Criu, find_criu
from criu_train.doctor import probe as probe_module
from criu_train.doctor.probe import probe
from criu_train.errors import EnvironmentUnfitError

pytestmark = [pytest.mark.criu, pytest.mark.slow]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the probe makes its scratch directories."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory


@pytest.fixture
def criu() -> Criu:
    return find_criu()


def wrapped(criu: Criu, path: Path, body: str) -> Criu:
    """A CRIU that is this Python code: ``words`` are what it was called with, ``criu`` runs the real one."""
    lines = [
        f"#!{sys.executable} -I",
        "import subprocess, sys, time, pathlib",
        "words = sys.argv[1:]",
        f"def criu(words): return subprocess.call([*{criu.command!r}, *words])",
        "def after(option): return pathlib.Path(words[words.index(option) + 1])",
        body,
    ]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return replace(criu, command=(str(path),))


NO_SCRIPT = 'after("--action-script").write_text("#!/bin/false"); sys.exit(criu(words))'
NO_LINKS = """
code = criu(words)
if words[0] == "dump":
    for link in after("--images-dir").parent.glob("shm/*"):
        link.unlink()
sys.exit(code)
"""
NO_NFTABLES = """
if words[0] == "dump" and "nftables" in words:
    after("--log-file").write_text("(00.1) Error (criu/net.c:3308): Locking network failed using nftables\\n")
    sys.exit(1)
sys.exit(criu(["nftables" if word == "iptables" else word for word in words]))
"""


def test_a_criu_that_works_passes_in_seconds_and_leaves_nothing(criu: Criu, scratch: Path) -> None:
    verdict = probe(criu)
    assert verdict.passed, verdict.detail
    assert verdict.version == criu.version
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("sys.exit(1)", "the dump failed", id="fails to dump"),
        pytest.param(
            'sys.exit(criu([word for word in words if word != "--leave-running"]))',
            "the dumped tree did not run on",
            id="kills what it dumps",
        ),
        pytest.param(
            'sys.exit(words[0] == "dump" and criu(words))', "the restored tree did not go on", id="restores nothing"
        ),
        pytest.param('sys.exit(words[0] == "restore" or criu(words))', "the restore failed", id="fails to restore"),
        pytest.param(NO_SCRIPT, "the dump failed: the snapshot's files", id="whose action script fails"),
    ],
)
def test_a_criu_that_fails_is_told_from_one_that_works(
    criu: Criu, tmp_path: Path, scratch: Path, body: str, expected: str
) -> None:
    verdict = probe(wrapped(criu, tmp_path / "criu", body))
    assert not verdict.passed
    assert verdict.detail.startswith(expected)
    assert list(scratch.iterdir()) == []


def test_links_to_deleted_files_are_what_the_restore_depends_on(criu: Criu, tmp_path: Path, scratch: Path) -> None:
    verdict = probe(wrapped(criu, tmp_path / "criu", NO_LINKS))
    assert "lacks the content of the deleted file" in verdict.detail


def test_a_criu_that_hangs_is_given_up_and_leaves_nothing(
    criu: Criu, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "CELL_LIMIT_S", 1.5)
    verdict = probe(wrapped(criu, tmp_path / "criu", "time.sleep(600)"))
    assert (verdict.passed, verdict.detail) == (False, "the dump failed: it did not end in time")
    assert list(scratch.iterdir()) == []


def test_iptables_is_tried_where_nftables_does_not_lock(criu: Criu, tmp_path: Path, scratch: Path) -> None:
    verdict = probe(wrapped(criu, tmp_path / "criu", NO_NFTABLES))
    assert (verdict.passed, verdict.network_lock) == (True, "iptables")


def test_only_root_can_probe(criu: Criu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EnvironmentUnfitError, match="root"):
        probe(criu)
