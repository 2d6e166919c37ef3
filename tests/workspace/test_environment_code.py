"""Which commit a training runs, with git and without."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from surroundings_samples import checkout, git

from criu_train.store.environment import CodeVersion
from criu_train.workspace import code_version as asking
from criu_train.workspace.code_version import code_version

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def test_commit_and_branch_of_a_checkout_are_known_also_from_a_directory_in_it(tmp_path: Path) -> None:
    commit = checkout(tmp_path / "code")
    (tmp_path / "code" / "runs").mkdir()
    assert code_version(str(tmp_path / "code" / "runs")) == CodeVersion(commit, "main", False)


def test_no_checkout_is_no_version(tmp_path: Path) -> None:
    assert code_version(str(tmp_path)) is None
    assert code_version(str(tmp_path / "gone")) is None


def test_a_changed_file_is_dirt_and_a_training_s_own_output_and_store_are_not(tmp_path: Path) -> None:
    commit = checkout(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / ".criu-train").mkdir()
    (tmp_path / ".criu-train" / "store.json").write_text("{}")
    git(tmp_path, "add", ".criu-train")
    assert code_version(str(tmp_path)) == CodeVersion(commit, "main", False)
    (tmp_path / "train.py").write_text("print('two, longer')\n")
    assert code_version(str(tmp_path)) == CodeVersion(commit, "main", True)


def test_a_detached_head_and_a_repository_without_commits_are_told(tmp_path: Path) -> None:
    commit = checkout(tmp_path / "a")
    git(tmp_path / "a", "checkout", "--detach")
    assert code_version(str(tmp_path / "a")) == CodeVersion(commit, None, False)
    (tmp_path / "b").mkdir()
    git(tmp_path / "b", "init")
    assert code_version(str(tmp_path / "b")) == CodeVersion(None, "main", False)


@pytest.mark.parametrize("packed", [False, True])
def test_without_git_the_commit_is_read_and_changes_are_unknown(
    tmp_path: Path, without_git: None, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    code, linked = tmp_path / "code", tmp_path / "linked"
    commit = checkout(code)
    git(code, "worktree", "add", "-b", "side/branch", str(linked))
    if packed:
        git(code, "pack-refs", "--all")
        assert not (code / ".git/refs/heads/main").exists()
    assert code_version(str(code)) == CodeVersion(commit, "main", None)
    assert code_version(str(linked)) == CodeVersion(commit, "side/branch", None)
    git(code, "checkout", "--detach")
    assert code_version(str(code)) == CodeVersion(commit, None, None)


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"a\0b"])
def test_a_damaged_repository_says_nothing_and_raises_nothing(tmp_path: Path, without_git: None, damage: bytes) -> None:
    commit = checkout(tmp_path)
    assert code_version(str(tmp_path)) == CodeVersion(commit, "main", None)
    (tmp_path / ".git/commondir").write_bytes(damage)
    assert code_version(str(tmp_path)) in (None, CodeVersion(commit, "main", None))
    (tmp_path / ".git/HEAD").write_bytes(b"ref: refs/heads/" + damage)
    found = code_version(str(tmp_path))
    assert found is None or found.commit is None
    assert code_version("/a\0name") is None


def test_the_files_of_a_repository_are_read_only_where_git_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = checkout(tmp_path)
    monkeypatch.setattr(asking, "_read", lambda top: pytest.fail(f"{top} was read"))
    assert code_version(str(tmp_path)) == CodeVersion(commit, "main", False)


def test_a_reference_that_leads_out_of_the_repository_is_not_followed(tmp_path: Path, without_git: None) -> None:
    checkout(tmp_path / "code")
    (tmp_path / "secret").write_text("a" * 40)
    (tmp_path / "code/.git/HEAD").write_text("ref: ../../secret\n")
    assert code_version(str(tmp_path / "code")) == CodeVersion(None, None, None)


def test_what_the_configuration_of_a_checkout_would_start_is_not_started(tmp_path: Path) -> None:
    commit = checkout(tmp_path)
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(trap))
    assert code_version(str(tmp_path)) == CodeVersion(commit, "main", False)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_somebody_else_s_checkout_is_asked_in_their_name(tmp_path: Path) -> None:
    # pytest's own directories let nobody else in.
    for one in (tmp_path, *tmp_path.parents[:2]):
        one.chmod(0o755)
    code = tmp_path / "code"
    commit = checkout(code)
    filtered = f'sh -c "id -u > {code}/who; cat"'
    git(code, "config", "filter.spy.clean", filtered)
    (code / ".gitattributes").write_text("train.py filter=spy\n")
    for parent, names, files in os.walk(code):
        for name in (".", *names, *files):
            os.chown(os.path.join(parent, name), 65534, 65534)
    (code / "train.py").write_text("print('two')\n")
    os.utime(code / "train.py", (1, 1))
    assert code_version(str(code)) == CodeVersion(commit, "main", True)
    assert (code / "who").read_text().strip() == "65534"


def test_a_git_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = checkout(tmp_path / "code")
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    began = time.monotonic()
    assert code_version(str(tmp_path / "code"), limit_s=0.2) == CodeVersion(commit, "main", None)
    assert time.monotonic() - began < 10
