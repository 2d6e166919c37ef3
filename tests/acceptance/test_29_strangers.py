"""What other users of the machine put in our way, and what leads out of the store, is refused with one clear line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from harness import Job, Told, tell, workload

StartJob = Callable[..., Job]

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = workload("plain.py", "--steps", 2000, "--delay", 0.02)
NOBODY = 65534


def as_nobody(script: str, cwd: Path) -> None:
    nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--inh-caps", "-all"]
    subprocess.run([*nobody, "sh", "-ec", script], cwd=cwd, check=True, stdin=subprocess.DEVNULL, timeout=30)


@pytest.fixture
def shared(place: Path) -> Path:
    """A directory as /tmp is: everybody may make things there."""
    directory = place / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    place.chmod(0o755)
    return directory


def assert_refused(told: Told, *words: str) -> None:
    said = " ".join(told.text.replace("│", " ").split())
    assert told.code == 125, said
    assert "Traceback" not in said
    assert "unexpected" not in said
    for word in words:
        assert word in said


def interrupted(start_job: StartJob) -> tuple[Job, Path]:
    """A killed job, and the directory of its one snapshot."""
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_step(5)
    snapshot = job.dump()
    job.kill_everything()
    return job, job.store / "snapshots" / snapshot


# -- snapshots ------------------------------------------------------------------------------------------------------


def test_a_snapshot_that_another_user_put_there_is_restored_by_nobody(start_job: StartJob) -> None:
    job, snapshot = interrupted(start_job)
    for path in (snapshot, *snapshot.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    why = f"the snapshot belongs to user id {NOBODY}"
    assert_refused(job.tell("restore", snapshot.name), why)
    assert job.tell("restore", "--latest").code == 2
    assert_refused(job.tell("snapshot", "export", "1", str(job.place / "exported")), why)
    job.start("--on-restore-failure", "fail")
    assert job.wait() == 125
    assert why in " ".join(job.said().replace("│", " ").split())


def test_a_snapshot_that_others_can_write_to_is_restored_by_nobody(start_job: StartJob) -> None:
    job, snapshot = interrupted(start_job)
    snapshot.chmod(0o777)
    assert_refused(job.tell("restore", snapshot.name), "can be written to by other users (mode 0777)")


def seal(snapshot: Path, manifest: dict[str, Any]) -> None:
    """A manifest as somebody could write it by hand, with the marker that belongs to it."""
    data = json.dumps(manifest).encode()
    (snapshot / "manifest.json").write_bytes(data)
    (snapshot / "COMPLETE").write_text(blake3(data).hexdigest() + "\n")


def test_a_manifest_that_points_out_of_the_snapshot_is_refused(start_job: StartJob) -> None:
    job, snapshot = interrupted(start_job)
    foreign = job.place / "foreign"
    foreign.write_bytes(b"not yours")
    manifest = json.loads((snapshot / "manifest.json").read_bytes())
    up = os.path.relpath(foreign, snapshot)
    for name in (up, f"images/../{up}", str(foreign), f"images/{foreign}"):
        told = {**manifest, "files": {**manifest["files"], name: [9, blake3(b"not yours").hexdigest()]}}
        seal(snapshot, told)
        assert_refused(job.tell("restore", snapshot.name), f"{name[:12]}", "leads out of the snapshot")
    job.start("--on-restore-failure", "fail")
    assert job.wait() == 125
    assert foreign.read_bytes() == b"not yours"


@contextlib.contextmanager
def link_in_place_of(path: Path, target: Path, owner: int = 0) -> Iterator[None]:
    kept = path.with_name("kept")
    path.rename(target if target.parent != path.parent and not target.exists() else kept)
    path.symlink_to(target)
    os.chown(path, owner, owner, follow_symlinks=False)
    yield
    path.unlink()
    (kept if kept.exists() else target).rename(path)


def test_a_symbolic_link_in_a_snapshot_is_refused(start_job: StartJob) -> None:
    job, snapshot = interrupted(start_job)
    parts = ("files", "images", "packs", "images/pstree.img", "listing.json")
    for path in (min((snapshot / "files").iterdir()), *(snapshot / part for part in parts)):
        with link_in_place_of(path, job.place / "elsewhere"):
            assert_refused(job.tell("restore", snapshot.name), "corrupt")
    assert job.tell("snapshot", "verify", snapshot.name).code == 0


def test_a_link_in_place_of_a_part_of_the_store_is_not_followed_to_another_user_s(
    start_job: StartJob, shared: Path
) -> None:
    job, _ = interrupted(start_job)
    as_nobody("umask 022; mkdir snapshots; echo '{}' > store.json; echo > lock", shared)
    for part in ("store.json", "lock", "snapshots"):
        with link_in_place_of(job.store / part, shared / part, NOBODY):
            assert_refused(job.tell("restore", "--latest"))


def test_a_store_that_another_user_could_swap_is_used_and_told(place: Path) -> None:
    theirs = place / "theirs"
    theirs.mkdir()
    assert "put another store" not in tell("run", "--", "true", cwd=theirs).text
    os.chown(theirs, NOBODY, NOBODY)
    told = tell("run", "--", "true", cwd=theirs)
    assert told.code == 0, told.text
    assert f"others can put another store in place of {theirs}/.criu-train: {theirs} belongs to" in told.err


# -- places that everybody may write to -----------------------------------------------------------------------------


TRAPS = ("mkdir there", "mkdir mine; ln -s mine there", "ln -s nowhere there", "ln -s /root there", "touch there")


@contextlib.contextmanager
def trap_by_nobody(trap: str, shared: Path, name: str = "there") -> Iterator[None]:
    """A trap of another user's, in which nothing of ours may ever be found."""
    as_nobody(trap.replace("there", name), shared)
    before = sorted(shared.rglob("*"))
    yield
    assert sorted(shared.rglob("*")) == before
    assert all(path.lstat().st_uid == NOBODY for path in before)
    as_nobody("rm -rf -- *", shared)


def assert_no_way(told: Told) -> None:
    assert told.code in (2, 125), told.text
    assert "Traceback" not in told.text
    assert "unexpected" not in told.text


def test_what_another_user_prepared_is_not_taken_for_a_store(shared: Path) -> None:
    for trap in TRAPS:
        with trap_by_nobody(trap, shared):
            assert_no_way(tell("--store", str(shared / "there"), "run", "--", "true", cwd=shared.parent))


def test_nothing_is_exported_into_what_another_user_prepared(start_job: StartJob, shared: Path) -> None:
    job, snapshot = interrupted(start_job)
    for trap in TRAPS:
        with trap_by_nobody(trap, shared):
            assert_no_way(job.tell("snapshot", "export", snapshot.name, str(shared / "there")))


def test_an_export_that_another_user_can_change_is_not_imported(start_job: StartJob, shared: Path) -> None:
    job, snapshot = interrupted(start_job)
    exported = shared / "exported"
    told = job.tell("snapshot", "export", snapshot.name, str(exported))
    assert told.code == 0, told.text
    os.chown(exported / "pstree.img", NOBODY, NOBODY)
    assert_refused(job.tell("snapshot", "import", str(exported)), f"belongs to user id {NOBODY}")


def test_without_run_a_trap_in_tmp_is_refused_and_named(place: Path, shared: Path) -> None:
    without_run = 'mount -t tmpfs none /run; mount -o remount,ro /run; exec "$@"'
    for trap in TRAPS:
        with trap_by_nobody(trap, shared, "criu-train"):
            told = by(["unshare", "--mount", "sh", "-c", without_run, "sh"], place, TMPDIR=str(shared))
            assert_refused(told, str(shared / "criu-train"))
            assert "the store" not in told.err
    shared.chmod(0o777)
    told = by(["unshare", "--mount", "sh", "-c", without_run, "sh"], place, TMPDIR=str(shared))
    assert_refused(told, "anybody could put others in their place")
    assert list(shared.iterdir()) == []


def by(wrapper: list[str], place: Path, **env: str) -> Told:
    return tell("run", "--", "true", cwd=place, env=env, by=wrapper)


def test_a_private_criu_that_others_can_replace_is_not_executed(place: Path) -> None:
    prefix = place / "prefix/criu"
    (prefix / "usr/sbin").mkdir(parents=True)
    program = prefix / "usr/sbin/criu"
    program.write_text(f"#!/bin/sh\ntouch {place}/executed\necho Version: 4.2\n")
    program.chmod(0o755)
    env = {"CRIU_TRAIN_PREFIX": str(prefix), "CRIU_TRAIN_CRIU": "", "PATH": "/usr/bin:/bin"}
    for path in (prefix.parent, prefix, program.parent, program):
        mode, arguments = path.stat().st_mode, ["setup"] if path == prefix else ["run", "--", "true"]
        path.chmod(mode | 0o022)
        assert_refused(tell(*arguments, cwd=place, env=env), str(path))
        path.chmod(mode)
        os.chown(path, NOBODY, NOBODY)
        assert_refused(tell(*arguments, cwd=place, env=env), str(path))
        os.chown(path, 0, 0)
    assert not (place / "executed").exists()
