"""What doctor says about this machine, and about ones that lack something."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from criu_train.criu.find import find_criu
from criu_train.doctor import checks, privileges
from criu_train.doctor.checks import Check, Report, examine

KEYS = {"name", "ok", "detail", "tip"}


def doctor(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "criu_train", "doctor", *words]
    env = {**os.environ, "PYTHONPATH": str(Path(checks.__file__).parents[2]), **environment}
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=100, check=False)


def check(report: Report, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


@pytest.mark.criu
def test_a_machine_on_which_runs_work_is_told_so(tmp_path: Path) -> None:
    told = doctor("--json", cwd=tmp_path)
    assert told.returncode == 0, told.stdout
    content = json.loads(told.stdout)
    assert content["ok"] is True
    assert all(set(row) >= KEYS for row in content["checks"])
    assert all(row["tip"] for row in content["checks"] if not row["ok"])
    criu = find_criu()
    assert content["criu"] == {"command": list(criu.command), "version": criu.version}
    said = subprocess.run([*content["criu"]["command"], "--version"], capture_output=True, text=True, check=True)
    assert criu.version in said.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.criu
def test_each_check_is_one_line_for_people(tmp_path: Path) -> None:
    told = doctor(cwd=tmp_path)
    assert told.returncode == 0
    names = [check.name for check in examine(tmp_path).checks]
    lines = [line for line in told.stdout.splitlines() if "tip: " not in line]
    assert len(lines) == len(names) + 1
    assert all(line[8:].startswith(f"{name}  ") for line, name in zip(lines, names, strict=False))
    assert told.stdout.splitlines()[-1] == "a run would work here"


@pytest.mark.criu
def test_without_a_criu_a_run_would_not_work(tmp_path: Path) -> None:
    empty = {"CRIU_TRAIN_PREFIX": str(tmp_path / "none/criu"), "CRIU_TRAIN_CRIU": "/bin/false"}
    told = doctor("--json", cwd=tmp_path, **empty)
    content = json.loads(told.stdout)
    if find_criu().origin == "system":
        assert content["criu"] is not None
        return
    assert (told.returncode, content["ok"], content["criu"]) == (125, False, None)
    row = next(row for row in content["checks"] if row["name"] == "criu")
    assert "criu-train setup" in row["tip"]


def test_a_user_who_is_not_root_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    report = examine(tmp_path)
    assert not report.ok
    assert report.checks[0].detail == "user 1000 is not root"
    assert "sudo" in report.checks[0].tip


def test_root_without_its_capabilities_is_told_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "CAPABILITIES", {"CAP_THAT_NOBODY_HAS": 63})
    check = checks._privileges()
    assert (check.ok, check.detail) == (False, "root without CAP_THAT_NOBODY_HAS")
    assert "--privileged" in check.tip


def test_a_missing_tool_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "nsenter" else f"/usr/bin/{tool}")
    namespaces = checks._namespaces()
    assert (namespaces.ok, namespaces.tip) == (False, "install util-linux")


def test_a_full_disk_and_little_memory_stand_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10 << 20))
    monkeypatch.setattr(checks.psutil, "virtual_memory", lambda: SimpleNamespace(available=10 << 20))
    disk, memory = checks._room(tmp_path / "job/.criu-train")
    assert not disk.ok
    assert "--store" in disk.tip
    assert str(tmp_path) in disk.detail  # the nearest directory that exists
    assert not memory.ok


@pytest.fixture
def filesystem_without_fanotify(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr(checks.fanotify, "mark_filesystem", refuse)
    yield


def test_what_is_merely_useful_does_not_stand_in_the_way(tmp_path: Path, filesystem_without_fanotify: None) -> None:
    found = checks._fanotify(tmp_path)
    assert (found.ok, found.needed) == (False, False)
    assert Report((found,), None).ok
    assert not Report((found, Check("needed", False, "missing", "get it")), None).ok


@pytest.mark.parametrize(
    ("content", "ok", "told"),
    [
        ("always [madvise] never\n", True, "captures can use them (madvise)"),
        ("[always] madvise never\n", True, "captures can use them (always)"),
        ("always madvise [never]\n", False, "switched off"),
        (None, False, "not supported by this kernel"),
    ],
)
def test_huge_pages_are_told_and_never_stand_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, ok: bool, told: str
) -> None:
    switch = tmp_path / "enabled"
    if content is not None:
        switch.write_text(content)
    monkeypatch.setattr(checks, "_HUGE_PAGES", switch)
    found = checks._huge_pages()
    assert (found.ok, found.detail, found.needed, bool(found.tip)) == (ok, told, False, not ok)


@pytest.mark.criu
@pytest.mark.parametrize(("code", "ok"), [(0, True), (1, False)])
def test_soft_dirty_tracking_is_told_and_never_stands_in_the_way(
    monkeypatch: pytest.MonkeyPatch, code: int, ok: bool
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(checks, "_call", lambda argv: (asked.append(argv), (code, ""))[1])
    row = next(row for row in checks._FEATURES if row[0] == "soft-dirty tracking")
    found = checks._feature(find_criu(), *row)
    assert asked[0][-2:] == ["--feature", "mem_dirty_track"]
    assert (found.ok, found.needed) == (ok, False)
    assert ok or "pre-dumps" in found.tip
