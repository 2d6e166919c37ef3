"""Which CRIU is taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from criu_train.criu.find import candidates, find_criu
from criu_train.criu.verdicts import Verdict, remember, verdict_of
from criu_train.errors import EnvironmentUnfitError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any CRIU: the system's would be in ``system``, the private one below ``private/criu``."""
    monkeypatch.setattr("criu_train.criu.find._SYSTEM_PATH", str(tmp_path / "system"))
    monkeypatch.setenv("PATH", str(tmp_path / "system"))
    monkeypatch.setenv("CRIU_TRAIN_PREFIX", str(tmp_path / "private/criu"))
    monkeypatch.delenv("CRIU_TRAIN_CRIU", raising=False)
    return tmp_path


def install(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho Version: {version}\n")
    path.chmod(0o755)
    return path


def probed(binary: Path, *, passed: bool) -> None:
    remember(binary, Verdict(passed, "a sentence", "9.9", "iptables", "2026-11-21T20:45:12Z"))


def test_without_any_criu_the_way_to_one_is_told(machine: Path) -> None:
    with pytest.raises(EnvironmentUnfitError, match="no CRIU was found") as caught:
        find_criu()
    assert "criu-train setup" in caught.value.tip


def test_the_systems_criu_is_preferred_when_both_passed_the_probe(machine: Path) -> None:
    system, private = install(machine / "system/criu", "4.2"), install(machine / "private/criu/usr/sbin/criu", "4.3")
    probed(system, passed=True)
    probed(private, passed=True)
    assert find_criu().origin == "system"


def test_one_that_passed_the_probe_is_preferred_to_one_that_was_not_tried(machine: Path) -> None:
    install(machine / "system/criu", "4.2")
    private = install(machine / "private/criu/usr/sbin/criu", "4.3")
    probed(private, passed=True)
    assert find_criu().binary == private


def test_of_two_that_were_not_tried_the_private_one_is_taken(machine: Path) -> None:
    install(machine / "system/criu", "3.17")
    install(machine / "private/criu/usr/sbin/criu", "4.2")
    assert find_criu().version == "4.2"
    assert [criu.origin for criu in candidates()] == ["system", "private"]


def test_one_that_failed_the_probe_is_never_taken(machine: Path) -> None:
    probed(install(machine / "system/criu", "4.1"), passed=False)
    with pytest.raises(EnvironmentUnfitError, match="does not work on this kernel: a sentence"):
        find_criu()


def test_one_that_is_named_is_taken_before_all_others(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed(install(machine / "system/criu", "4.2"), passed=True)
    named = install(machine / "elsewhere/criu", "5.0")
    monkeypatch.setenv("CRIU_TRAIN_CRIU", str(named))
    assert (find_criu().origin, find_criu().version) == ("env", "5.0")


def test_what_the_probe_found_out_comes_with_it(machine: Path) -> None:
    probed(install(machine / "system/criu", "4.2"), passed=True)
    assert find_criu().network_lock == "iptables"


def test_a_private_tree_is_run_by_its_own_loader_with_its_own_plugins_and_pycriu(machine: Path) -> None:
    prefix = machine / "private/criu"
    binary = install(prefix / "usr/sbin/criu", "4.2")
    libraries = prefix / "usr/lib/x86_64-linux-gnu"
    loader = install(libraries / "ld-linux-x86-64.so.2", "4.2 loaded")
    pycriu = prefix / "usr/lib/python3/dist-packages/pycriu/images"
    pycriu.mkdir(parents=True)
    (pycriu / "pb.py").touch()
    (prefix / "usr/lib/criu").mkdir()
    criu = find_criu()
    assert criu.command == (str(loader), "--library-path", str(libraries), str(binary))
    assert criu.version == "4.2"
    assert criu.pycriu == pycriu.parent.parent
    assert criu.plugins == prefix / "usr/lib/criu"


def test_a_program_that_does_not_know_its_version_is_no_criu(machine: Path) -> None:
    path = install(machine / "system/criu", "")
    path.write_text("#!/bin/sh\nexit 1\n")
    assert candidates() == ()


def test_a_verdict_holds_until_the_binary_changes(machine: Path) -> None:
    binary = install(machine / "system/criu", "4.2")
    probed(binary, passed=True)
    assert verdict_of(binary) is not None
    os.utime(binary, (1, 1))
    assert verdict_of(binary) is None


def test_a_verdict_holds_until_the_kernel_changes(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = install(machine / "system/criu", "4.2")
    probed(binary, passed=True)
    kernel = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*kernel[:2], "9.9.9", *kernel[3:])))
    assert verdict_of(binary) is None


def test_a_record_of_verdicts_that_is_garbage_counts_as_none(machine: Path) -> None:
    binary = install(machine / "system/criu", "4.2")
    probed(binary, passed=True)
    (machine / "private/probes.json").write_text("{garbage")
    assert verdict_of(binary) is None
    probed(binary, passed=True)
    assert verdict_of(binary) is not None
