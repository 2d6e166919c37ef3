"""Getting a CRIU: from what is there, from Debian, or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from criu_train.criu.find import Criu, candidates, describe, find_criu
from criu_train.criu.verdicts import Verdict, remember, verdict_of
from criu_train.doctor import debian
from criu_train.doctor import setup as setting_up
from criu_train.doctor.setup import set_up
from criu_train.errors import EnvironmentUnfitError

WORKS = Verdict(True, "works", "9.9", "nftables", "2026-11-21T20:45:12Z")
FAILS = Verdict(False, "fails", "9.9", "nftables", "2026-11-21T20:45:12Z")


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The private prefix of a machine that has no other CRIU."""
    monkeypatch.delenv("CRIU_TRAIN_CRIU", raising=False)
    monkeypatch.setenv("CRIU_TRAIN_PREFIX", str(tmp_path / "place/criu"))
    monkeypatch.setattr(
        setting_up, "candidates", lambda: tuple(criu for criu in candidates() if criu.origin != "system")
    )
    return tmp_path / "place/criu"


@pytest.fixture
def told() -> list[str]:
    return []


def pretend(binary: Path, version: str) -> Path:
    """Something that passes for a CRIU until it is tried."""
    binary.parent.mkdir(parents=True, exist_ok=True)
    binary.write_text(f"#!/bin/sh\necho Version: {version}\n")
    binary.chmod(0o755)
    return binary


def fetched(version: str) -> object:
    return lambda draft, suite: pretend(draft / "usr/sbin/criu", version) and None


def verdicts(monkeypatch: pytest.MonkeyPatch, **by_version: Verdict) -> None:
    monkeypatch.setattr(setting_up, "probe", lambda criu: by_version[f"v{criu.version}"])


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.criu
@pytest.mark.alone
@pytest.mark.slow
def test_a_criu_from_debian_works_and_needs_no_network_the_second_time(
    prefix: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    criu = set_up(told.append)
    assert criu.origin == "private"
    assert tuple(map(int, criu.version.split(".")[:2])) >= (4, 2)
    assert criu.pycriu == prefix / "usr/lib/python3/dist-packages"
    assert any("fetching CRIU from Debian" in line for line in told)
    assert names(prefix.parent) == {"criu", "probes.json", "setup.lock"}

    monkeypatch.setattr(debian, "fetch", lambda draft, suite: pytest.fail("it went to the network"))
    again: list[str] = []
    assert set_up(again.append) == criu
    assert again == [line for line in again if "works on this kernel" in line]


def test_a_download_that_fails_leaves_nothing(prefix: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "_mirrors", lambda: ["file:///nowhere/debian"])
    monkeypatch.setattr(debian, "check_host", lambda: None)
    with pytest.raises(EnvironmentUnfitError, match="apt-get failed"):
        set_up(told.append)
    assert names(prefix.parent) == {"setup.lock"}


def test_what_a_killed_setup_left_is_swept_up(prefix: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    remember(pretend(prefix / "usr/sbin/criu", "4.2"), WORKS)
    pycriu_there(monkeypatch)
    (prefix.parent / ".fetching-x1y2/usr").mkdir(parents=True)
    set_up(told.append)
    assert names(prefix.parent) == {"criu", "probes.json", "setup.lock"}


def pycriu_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("criu_train.criu.find._find_pycriu", lambda prefix: Path("/somewhere"))


def test_a_private_criu_that_fails_is_replaced_by_one_that_works(
    prefix: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pycriu_there(monkeypatch)
    pretend(prefix / "usr/sbin/criu", "4.2")
    monkeypatch.setattr(debian, "check_host", lambda: None)
    monkeypatch.setattr(debian, "fetch", fetched("4.3"))
    verdicts(monkeypatch, **{"v4.2": FAILS, "v4.3": WORKS})
    assert set_up(told.append).version == "4.3"
    assert "4.3" in (prefix / "usr/sbin/criu").read_text()
    assert names(prefix.parent) == {"criu", "probes.json", "setup.lock"}
    assert verdict_of(prefix / "usr/sbin/criu") == WORKS


def test_a_private_criu_stays_when_its_successor_does_not_work(
    prefix: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pycriu_there(monkeypatch)
    pretend(prefix / "usr/sbin/criu", "4.2")
    monkeypatch.setattr(debian, "check_host", lambda: None)
    monkeypatch.setattr(debian, "fetch", fetched("4.3"))
    verdicts(monkeypatch, **{"v4.2": FAILS, "v4.3": FAILS})
    with pytest.raises(EnvironmentUnfitError, match="does not work on this kernel: fails"):
        set_up(told.append)
    assert "4.2" in (prefix / "usr/sbin/criu").read_text()
    assert names(prefix.parent) == {"criu", "probes.json", "setup.lock"}


def test_a_criu_without_its_python_module_is_not_enough(
    prefix: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("criu_train.criu.find._find_pycriu", lambda prefix: None)
    remember(pretend(prefix / "usr/sbin/criu", "4.2"), WORKS)
    monkeypatch.setattr(debian, "check_host", lambda: None)
    monkeypatch.setattr(debian, "fetch", fetched("4.3"))
    verdicts(monkeypatch, **{"v4.3": WORKS})
    set_up(told.append)
    assert any("pycriu is missing" in line for line in told)
    assert any("fetching" in line for line in told)


def test_a_named_criu_that_fails_is_not_replaced_behind_ones_back(
    prefix: Path, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = pretend(tmp_path / "mine", "4.0")
    monkeypatch.setenv("CRIU_TRAIN_CRIU", str(named))
    verdicts(monkeypatch, **{"v4.0": FAILS})
    with pytest.raises(EnvironmentUnfitError, match=str(named)) as caught:
        set_up(told.append)
    assert "CRIU_TRAIN_CRIU" in caught.value.tip


@pytest.mark.parametrize(
    ("names_of_it", "command"), [(["fedora"], "dnf"), (["manjaro", "arch"], "pacman"), (["sles", "suse"], "zypper")]
)
def test_other_distributions_are_told_which_criu_to_install(
    names_of_it: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "_distribution", lambda: names_of_it)
    with pytest.raises(EnvironmentUnfitError) as caught:
        debian.check_host()
    assert command in caught.value.tip
    assert "4.2 or newer" in caught.value.tip


def test_a_place_that_cannot_be_written_to_is_told(
    prefix: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix.parent.write_text("a file where a directory should be")
    with pytest.raises(EnvironmentUnfitError, match="can't be written to") as caught:
        set_up(told.append)
    assert "CRIU_TRAIN_PREFIX" in caught.value.tip


def test_only_root_can_set_up(prefix: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EnvironmentUnfitError, match="root"):
        set_up(told.append)


@pytest.mark.criu
@pytest.mark.alone
def test_a_criu_runs_from_wherever_its_tree_lies(tmp_path: Path) -> None:
    private = [criu for criu in candidates() if criu.plugins is not None]
    source: Criu = private[0] if private else find_criu()
    if not private:
        assert source.version  # the system's CRIU has no tree of its own to move
        return
    moved = tmp_path / "moved"
    shutil.copytree(source.binary.parents[2], moved, symlinks=True)
    there = describe(moved / "usr/sbin/criu", "private")
    assert there is not None
    assert there.version == source.version
    assert str(moved) in there.command[0]
