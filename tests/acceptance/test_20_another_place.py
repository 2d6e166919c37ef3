"""A run that was moved, copied or imported goes on, or is told what to do; and one on a machine that does not fit."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Reference, StartJob
from harness import Job, Told, until, workload
from places import after, assert_refused, call, copy, move, run_on, started_in, stopped

from criu_train.store.digest import digest_bytes
from criu_train.store.manifest import Manifest

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = workload("plain.py", "--steps", 1000, "--delay", 0.03, "--loopback", "--child")


def told_line(told: Told) -> str:
    """The command that a tip gives between its quotes."""
    line = re.search(r"`(.+?)`", told.err)
    assert line, told.err
    return line[1]


def test_a_moved_run_is_refused_with_the_very_line_after_which_it_goes_on(
    start_job: StartJob, undisturbed: Reference, place: Path
) -> None:
    job = stopped(start_job(TRAINING, "--every", "0"))
    moved = Job(place / "moved", TRAINING)
    moved.work.rmdir()
    move(job.work, moved.work)
    left = moved.contents()

    refused = run_on(moved, ())
    assert_refused(refused, f"works in {job.work}, not here", "--fresh")
    restore = call(moved, (), "restore", "--latest")
    assert_refused(restore, f"moved or copied to {moved.work}")
    assert told_line(restore) == told_line(refused)
    here = call(moved, (), "snapshot", "diff", "latest", "--here", "--json")
    assert here.code == 1
    assert [one["level"] for one in here.json()["findings"]] == ["blocking"]
    assert moved.contents() == left
    assert not job.work.exists(), "nothing may be made before it is clear where"

    told = run_on(replaced_store(moved, job), after(told_line(refused)), cwd=Path("/"))
    assert told.code == 0, told.text
    assert "cold start" not in told.text
    expected = undisturbed(TRAINING)
    assert moved.contents() == expected.contents
    assert (moved.work / ".criu-train" / "output.log").read_text() == expected.output
    assert not any(job.work.iterdir()), "the mount was the command's own"


def replaced_store(moved: Job, job: Job) -> Job:
    """The moved job as it is called at its old path."""
    moved.store = job.store
    return moved


def test_a_copy_of_a_run_never_touches_the_original(start_job: StartJob, undisturbed: Reference, place: Path) -> None:
    job = start_job(TRAINING, "--every", "0")
    job.wait_for_step(20)
    job.dump()
    copied = Job(place / "copy", TRAINING)
    copied.work.rmdir()
    copy(job.work, copied.work)
    pid = job.supervisor()["supervisor_pid"]
    restore = call(copied, (), "restore", "--latest")
    assert_refused(restore, f"may still run: the store is in use by the supervisor with PID {pid}", "stop it first")
    assert_refused(run_on(copied, ()), f"works in {job.work}, not here")

    job.kill_everything()
    left = job.contents()
    assert_refused(call(copied, (), "restore", "--latest"), f"moved or copied to {copied.work}")
    assert job.contents() == left
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == undisturbed(TRAINING).contents


@pytest.mark.parametrize("name", ["work", "bound"])
def test_under_a_bind_mount_whose_source_is_seen_too_a_killed_run_goes_on(
    undisturbed: Reference, place: Path, nothing_stays_behind: None, name: str
) -> None:
    """Whichever of its two names the store is called by."""
    command = workload("files.py", "--steps", 200, "--delay", 0.15)
    job = Job(place / "job", command)
    (job.place / "bound").mkdir()
    bound = after(f"mount --bind {job.work} {job.place}/bound && cd {job.place}/bound")
    inside = Job(job.place, command, store=job.place / name / ".criu-train")
    job.env = inside.env
    with started_in(bound, inside):
        job.wait_for_step(25)
        job.dump()
        job.wait_for_progress(22)
        job.kill_everything()
    told = run_on(inside, bound)
    assert told.code == 0, told.text
    assert "cold start" not in told.text
    assert job.contents() == undisturbed(command).contents


def test_an_imported_run_goes_on_twice_beside_its_files_and_keeps_its_store_and_its_output(
    start_job: StartJob, undisturbed: Reference, place: Path
) -> None:
    first = stopped(start_job(TRAINING, "--every", "0", store=place / "first"))
    exported = place / "exported"
    assert first.tell("snapshot", "export", "latest", str(exported)).code == 0
    move(first.store, place / "away")
    job = Job(first.place, TRAINING, "--every", "0")  # its store lies in the working directory now
    imported = job.tell("snapshot", "import", f"../../{exported.name}")
    assert imported.code == 0, imported.text
    try:
        job.start()
        job.wait_for_restore()
        made = job.wait_for_progress()
        until(lambda: f"step {made} " in job.said(), "what the training prints")
        job.kill_everything()
        kept = sorted(path.name for path in (job.store / "journals").iterdir())
        job.start()
        job.wait_for_restore()
        assert set(kept) <= {path.name for path in (job.store / "journals").iterdir()}
        assert job.finish() == 0
    finally:
        job.close()
    expected = undisturbed(TRAINING)
    assert job.contents() == expected.contents
    assert job.output() == expected.output
    assert not first.store.exists(), "nothing of it is needed any more"


def another_cpu(manifest: Manifest) -> Manifest:
    return replace(manifest, cpu=replace(manifest.cpu, flags=(*manifest.cpu.flags, "avx1024_fp8")))


def another_python(manifest: Manifest) -> Manifest:
    """As if the interpreter had been of another build when the snapshot was taken."""
    program = str(Path(sys.executable).resolve())
    changed = [
        one._replace(build="ab" * 20, mtime_ns=one.mtime_ns - 1) if one.path == program and one.build
        else one._replace(size=one.size + 1) if one.path == program
        else one
        for one in manifest.external
    ]  # fmt: skip
    assert changed != list(manifest.external)
    return replace(manifest, external=tuple(changed))


@pytest.mark.parametrize(
    ("change", "words"),
    [(another_cpu, "lacks avx1024_fp8"), (another_python, str(Path(sys.executable).resolve()))],
    ids=["another processor", "another Python"],
)
def test_what_does_not_fit_is_refused_before_anything_is_touched(
    start_job: StartJob, change: Callable[[Manifest], Manifest], words: str
) -> None:
    job = start_job(TRAINING, "--every", "0")
    job.wait_for_step(20)
    job.dump()
    job.wait_for_progress()
    job.kill_everything()
    before = job.contents()
    (path,) = job.store.glob("snapshots/*/manifest.json")
    changed = change(Manifest.from_json(path.read_bytes())).to_json()
    path.write_bytes(changed)
    (path.parent / "COMPLETE").write_text(digest_bytes(changed) + "\n")
    told = run_on(job, (), "--on-restore-failure", "fail")
    assert_refused(told, "no snapshot could be restored")
    assert words in " ".join(told.err.split()), told.err
    assert job.contents() == before
    assert not any((job.store / "rollback").iterdir())
