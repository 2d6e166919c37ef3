"""What surrounded the training is in the snapshot, and a restore tells what has changed of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import StartJob
from harness import Job
from surroundings_samples import git

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAIN = """
import ctypes, json, os, subprocess, sys, time
library = ctypes.CDLL(sys.argv[1])
data = open(sys.argv[2], "rb")
for step in range(1, 100_000):
    with open("metrics.jsonl", "a") as log:
        log.write(json.dumps({"step": step}) + "\\n")
    if os.path.exists("grow") and not os.path.exists("model.bin"):
        helper = subprocess.Popen(["sleep", "1000"])
        held = open("model.bin", "wb")
        held.write(bytes(3000))
        held.flush()
    time.sleep(0.02)
"""


def install(site: Path, version: str, library: Path) -> None:
    """The package ``fake``, with one library."""
    shutil.rmtree(site, ignore_errors=True)
    (site / "fake").mkdir(parents=True)
    shutil.copy(library, site / "fake" / "lib.so")
    place = site / f"fake-{version}.dist-info"
    place.mkdir()
    (place / "RECORD").write_text(f"fake/lib.so,,\n{place.name}/RECORD,,\n")


def libraries() -> list[Path]:
    """Some real ones, of different builds."""
    return sorted(Path(sysconfig.get_config_var("DESTSHARED")).glob("_*.so"))


@pytest.fixture
def job(place: Path, start_job: StartJob) -> Job:
    """A training with a snapshot and a commit, that maps a library of a package and reads 2 MiB of data."""
    work, site, data = place / "job" / "work", place / "site-packages", place / "data.bin"
    work.mkdir(parents=True)
    (work / "train.py").write_text(TRAIN)
    git(work, "init")
    git(work, "add", "train.py")
    git(work, "commit", "-m", "first")
    install(site, "1.0", libraries()[0])
    data.write_bytes(os.urandom(2 << 20))
    job = start_job([sys.executable, "train.py", str(site / "fake" / "lib.so"), str(data)], "--every", "1h")
    job.wait_for_step(3)
    job.dump()
    return job


def test_a_snapshot_tells_python_packages_commit_and_data(job: Job, place: Path) -> None:
    commit = git(job.work, "rev-parse", "HEAD")
    manifest = job.tell("snapshot", "show", "latest", "--json").json()["manifest"]
    environment = manifest["environment"]
    python = environment["python"]
    assert (python["name"], python["version"]) == ("python", sys.version.split()[0])
    assert Path(python["path"]).samefile(sys.executable)
    assert environment["packages"][str(place / "site-packages")] == {"fake": "1.0"}
    # The training's own environment, as the tests run in it.
    everything = {name for packages in environment["packages"].values() for name in packages}
    assert {"pytest", "psutil", "click"} <= everything
    assert environment["code"] == {"commit": commit, "branch": "main", "dirty": False}
    status = (place / "data.bin").stat()
    assert environment["data"] == [[str(place / "data.bin"), status.st_size, status.st_mtime_ns]]
    shown = job.tell("snapshot", "show", "latest").out
    assert f"python {sys.version.split()[0]}, {len(everything)} packages" in shown
    assert f"{commit[:10]} on main" in shown


def test_diff_tells_what_changed_between_two_snapshots_and_nothing_of_this_machine(job: Job, place: Path) -> None:
    (job.work / "grow").touch()
    job.wait_for_progress(5)
    job.dump()
    told = job.tell("snapshot", "diff", "1", "2", "--json").json()
    assert list(told["tasks"]["added"].values()) == ["sleep"]
    assert (told["tasks"]["removed"], told["tasks"]["changed"]) == ({}, {})
    # The metrics are opened for each line, and may be open at either cut.
    assert set(told["open_files"]["added"]) - {str(job.work / "metrics.jsonl")} == {str(job.work / "model.bin")}
    assert any(path.endswith("/sleep") for path in told["libraries"]["added"])
    assert told["files"]["added"] == {str(job.work / "model.bin"): 3000}
    assert list(told["files"]["grown"]) == [str(job.work / "metrics.jsonl")]
    assert (told["files"]["removed"], told["files"]["rewritten"]) == ({}, {})
    assert not any(told["packages"].values()) and not any(told["data"].values())
    assert told["facts"]["tasks"] == [1, 2]
    assert not told["facts"].keys() & {"kernel", "cpu", "python", "code", "libc", "run", "command"}
    assert told["seconds"] >= 0 and told["added_bytes"] > 0
    said = job.tell("snapshot", "diff", "1", "2").out
    assert "sleep" in said and "model.bin  2.9 KiB" in said
    here = job.tell("snapshot", "diff", "latest", "--here")
    assert (here.code, here.out) == (0, "nothing\n")


def test_a_dump_does_not_wait_for_what_hangs_around_the_training_and_keeps_what_was_known(
    place: Path, start_job: StartJob
) -> None:
    work, program = place / "job" / "work", place / "venv" / "bin" / "python"
    for one in (work, program.parent):
        one.mkdir(parents=True)
    program.symlink_to(os.path.realpath(sys.executable))
    settings = place / "venv" / "pyvenv.cfg"
    settings.write_text(f"home = {Path(os.path.realpath(sys.executable)).parent}\n")
    (work / "train.py").write_text(TRAIN)
    data = place / "data.bin"
    data.write_bytes(b"x" * (2 << 20))
    job = start_job([str(program), "train.py", str(libraries()[0]), str(data)], "--every", "1h")
    job.wait_for_step(3)
    job.dump()
    known = job.tell("snapshot", "show", "latest", "--json").json()["manifest"]["environment"]
    settings.unlink()
    os.mkfifo(settings)  # whoever reads it waits for ever
    job.dump()
    job.dump()
    assert job.process is not None
    job.process.send_signal(signal.SIGTERM)
    assert job.wait() == 143
    manifests = [job.tell("snapshot", "show", number, "--json").json()["manifest"] for number in ("2", "3", "4")]
    assert [one["trigger"] for one in manifests] == ["manual", "manual", "preempt"]
    assert all(one["environment"] == known for one in manifests)


def test_another_commit_is_told_and_does_not_keep_the_training_from_going_on(job: Job) -> None:
    commit = git(job.work, "rev-parse", "HEAD")
    job.kill_everything()
    git(job.work, "commit", "--allow-empty", "-m", "second")
    job.start()
    job.wait_for_restore()
    new = git(job.work, "rev-parse", "HEAD")
    warning = f"the code is at {new[:10]} on main, the training started with {commit[:10]} on main"
    assert warning in job.said()
    job.wait_for_progress()
    # What it has in memory stays the old code, whatever is dumped after.
    job.dump()
    assert job.tell("snapshot", "diff", "latest", "--here").out.startswith(f"warning: {warning}\n")
    assert "code" not in job.tell("snapshot", "diff", "1", "2", "--json").json()["facts"]


def test_a_package_whose_mapped_library_was_replaced_is_named_and_keeps_the_snapshot_from_being_used(
    job: Job, place: Path
) -> None:
    job.kill_everything()
    before = job.contents()
    first, *others = libraries()
    other = next(one for one in others if one.stat().st_size != first.stat().st_size)
    install(place / "site-packages", "2.0", other)
    job.start("--on-restore-failure", "fail")
    assert job.wait() == 125
    assert "fake 1.0 was replaced by 2.0" in job.said()
    assert job.contents() == before
    events = [json.dumps(one) for one in job.events()]
    assert any("fake 1.0 was replaced by 2.0" in one for one in events)
