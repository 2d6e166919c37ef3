"""A snapshot that can't be used is passed over and it is told why; no damage makes a restore hang or start nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import Reference, StartJob
from harness import JOB_MARK, Job, marked, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = workload("plain.py", "--steps", 1000, "--delay", 0.03, "--child")


def flip_a_byte(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    position = len(data) // 2 if at is None else at
    data[position] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(data)


def pages(snapshot: Path) -> Path:
    """The largest pack that no other snapshot needs."""
    packs = [(path.stat(), path) for path in (snapshot / "packs").iterdir()]
    return max((info.st_size, path) for info, path in packs if info.st_nlink == min(i.st_nlink for i, _ in packs))[1]


def one_wrong_byte_in_the_pages(snapshot: Path) -> None:
    flip_a_byte(pages(snapshot))


def one_wrong_byte_in_the_pstree(snapshot: Path) -> None:
    flip_a_byte(snapshot / "images" / "pstree.img")


def truncated_pages(snapshot: Path) -> None:
    os.truncate(pages(snapshot), pages(snapshot).stat().st_size // 2)


def a_missing_image(snapshot: Path) -> None:
    next((snapshot / "images").glob("core-*.img")).unlink()


def no_marker(snapshot: Path) -> None:
    (snapshot / "COMPLETE").unlink()


def garbage_in_the_manifest(snapshot: Path) -> None:
    (snapshot / "manifest.json").write_bytes(b"\0garbage\xff" * 100)


def no_manifest(snapshot: Path) -> None:
    (snapshot / "manifest.json").unlink()


def garbage_in_the_listing(snapshot: Path) -> None:
    (snapshot / "listing.json").write_bytes(b"{}")


DAMAGES: list[Callable[[Path], None]] = [
    one_wrong_byte_in_the_pages,
    one_wrong_byte_in_the_pstree,
    truncated_pages,
    a_missing_image,
    no_marker,
    garbage_in_the_manifest,
    no_manifest,
    garbage_in_the_listing,
]


def job_with_snapshots(start_job: StartJob, count: int, *options: str) -> tuple[Job, list[str]]:
    """A job that was killed a few steps after its last snapshot; and the ids, oldest first."""
    job = start_job(TRAINING, "--every", "1h", *options)
    job.wait_for_step(10)
    ids = []
    for _ in range(count):
        ids.append(job.dump())
        job.wait_for_progress(5)
    job.kill_everything()
    return job, ids


def directory(job: Job, snapshot: str) -> Path:
    return job.store / "snapshots" / snapshot


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_snapshot_is_passed_over_for_the_next_older_one(
    start_job: StartJob, undisturbed: Reference, damage: Callable[[Path], None]
) -> None:
    job, [older, newest] = job_with_snapshots(start_job, 2)
    damage(directory(job, newest))
    job.start()
    status = job.wait_for_restore()
    assert status["restored_from"] == older
    assert newest in job.said(), "the one that was passed over is not named"
    assert job.finish() == 0
    assert job.contents() == undisturbed(TRAINING).contents


def test_verify_finds_one_wrong_byte_in_any_file_of_a_snapshot(start_job: StartJob) -> None:
    job, [snapshot] = job_with_snapshots(start_job, 1)
    assert job.tell("snapshot", "verify", snapshot).code == 0
    top = directory(job, snapshot)
    told_only = ("dump.log.zst", "stats-dump")  # nothing is restored from these
    sealed = [p for p in sorted(top.rglob("*")) if p.is_file() and p.stat().st_size and p.name not in told_only]
    assert len(sealed) > 10
    unseen = []
    for path in sealed:
        flip_a_byte(path)
        if job.tell("snapshot", "verify", snapshot).code == 0:
            unseen.append(path.name)
        flip_a_byte(path)
    assert unseen == []
    assert job.tell("snapshot", "verify", snapshot).code == 0


def test_without_any_usable_snapshot_the_training_starts_cold_and_the_files_stay(start_job: StartJob) -> None:
    job, ids = job_with_snapshots(start_job, 2)
    for snapshot in ids:
        truncated_pages(directory(job, snapshot))
    before = (job.work / "metrics.jsonl").read_bytes()
    output_before = job.output()
    job.start()
    job.wait_for_step(before.count(b"\n") + 5)
    assert job.status()["restored_from"] is None
    assert (job.work / "metrics.jsonl").read_bytes().startswith(before)
    assert output_before in [path.read_text() for path in job.store.glob("rollback/**/output.log*")]
    assert job.output().startswith("step 0 ")
    for snapshot in ids:
        assert snapshot in job.said()


def test_without_any_usable_snapshot_the_job_fails_if_it_was_told_to(start_job: StartJob) -> None:
    job, ids = job_with_snapshots(start_job, 2)
    for snapshot in ids:
        one_wrong_byte_in_the_pages(directory(job, snapshot))
    before = job.contents()
    job.start("--on-restore-failure", "fail")
    assert job.wait(30) == 125
    assert job.contents() == before
    for snapshot in ids:
        assert snapshot in job.said()


LISTENING = [*TRAINING, "--listen"]


def listening(job: Job) -> tuple[psutil.Process, int]:
    """The training, and its port."""
    root = psutil.Process(job.wait_for_pid("root_pid"))
    return root, next(c.laddr.port for c in root.net_connections("tcp") if c.status == psutil.CONN_LISTEN)


def test_what_is_taken_by_another_program_undoes_the_rollback_and_begins_nothing_anew(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(LISTENING, "--every", "1h")
    job.wait_for_step(10)
    _, port = listening(job)
    snapshot = job.dump()
    job.wait_for_progress(5)
    job.kill_everything()
    before = job.contents()
    with socket.create_server(("127.0.0.1", port)):
        job.start()
        assert job.wait(60) == 125
    assert snapshot in job.said()
    assert job.contents() == before
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == undisturbed(LISTENING).contents


def test_a_watched_training_whose_port_another_program_has_taken_is_waited_for(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(LISTENING, "--every", "1h")
    job.wait_for_step(10)
    root, port = listening(job)
    snapshot = job.dump()

    def taken() -> socket.socket | None:
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", port))
        return None

    root.kill()
    with until(taken, "the port to be free"):
        until(lambda: "it is tried again in 5" in " ".join(job.said().split()), "a restore in vain", 30)
        assert job.status()["state"] == "backoff"
    assert job.wait_for_restore()["restored_from"] == snapshot
    assert job.finish() == 0
    assert job.contents() == undisturbed(LISTENING).contents


def test_a_snapshot_whose_libraries_have_changed_is_refused_before_anything_is_touched(
    start_job: StartJob, place: Path
) -> None:
    library = place / "library.so"
    library.write_bytes(b"version 1" * 1000)
    job = start_job([*TRAINING, "--mapped", str(library)], "--every", "1h", "--on-restore-failure", "fail")
    job.wait_for_step(10)
    snapshot = job.dump()
    job.wait_for_progress(5)
    job.kill_everything()
    before = job.contents()
    library.write_bytes(b"version 2, a longer one" * 1000)
    job.start()
    assert job.wait(60) == 125
    assert snapshot in job.said()
    [reason] = [e["attempts"][0]["reason"] for e in job.events() if e["event"] == "restore"]
    assert "library.so" in reason
    assert job.contents() == before


def test_after_a_cold_start_the_run_before_can_still_be_gone_back_to_when_the_cause_is_mended(
    start_job: StartJob, place: Path, undisturbed: Reference
) -> None:
    library, was = place / "library.so", b"version 1" * 1000
    library.write_bytes(was)
    command = [*TRAINING, "--mapped", str(library)]
    reference = undisturbed(command)
    job = start_job(command, "--every", "1h", "--keep", "1")
    job.wait_for_step(10)
    left = job.dump()
    job.kill_everything()
    library.write_bytes(b"version 2, a longer one" * 1000)
    job.start()
    job.wait_for_state("running")
    assert f"{left}, stays" in " ".join(job.said().split())
    for _ in range(2):
        job.wait_for_progress(3)
        job.dump()
    assert [one["id"] for one in job.snapshots() if one["run"] != job.status()["run"]] == [left]
    assert len(job.snapshots()) == 2
    job.kill_everything()
    library.write_bytes(was)
    job.start(arguments=["restore", left])
    assert job.wait_for_restore()["restored_from"] == left
    assert job.finish() == 0
    assert job.contents() == reference.contents


def test_a_branch_leaves_the_later_snapshots_behind(start_job: StartJob) -> None:
    job, [first, second] = job_with_snapshots(start_job, 2)
    job.start(arguments=["restore", first])
    job.wait_for_restore()
    third = job.dump()
    assert {s["id"]: s["abandoned"] for s in job.snapshots()} == {first: False, second: True, third: False}
    job.kill_everything()
    job.start()
    assert job.wait_for_restore()["restored_from"] == third


LOCKING = """
import fcntl, time
lock = open("lock", "w"); fcntl.flock(lock, fcntl.LOCK_EX)
while True:
    open("metrics.jsonl", "a").write("{}\\n"); time.sleep(0.05)
"""


def test_a_restore_that_waits_for_a_lock_in_vain_says_so(start_job: StartJob) -> None:
    job = start_job([sys.executable, "-c", LOCKING], "--every", "1h")
    job.wait_for_step(5)
    job.dump()
    job.kill_everything()
    with (job.work / "lock").open() as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        job.start("--restore-timeout", "3s")
        assert job.wait() == 125
    assert "a file lock that another program" in " ".join(job.said().replace("│", " ").split())
    job.start()
    job.wait_for_restore()


def restoring(job: Job) -> psutil.Process | None:
    """The CRIU that restores right now."""
    for process in marked(f"{JOB_MARK}={job.env[JOB_MARK]}"):
        with contextlib.suppress(psutil.Error):
            if "restore" in process.cmdline() and any(word.endswith("/criu") for word in process.cmdline()):
                return process
    return None


def test_a_restore_whose_criu_is_killed_is_tried_again_rather_than_begun_from_the_start(start_job: StartJob) -> None:
    """It is no fault of the only snapshot there is."""
    job = start_job([*TRAINING, "--memory", "300"], "--every", "1h")
    job.wait_for_step(5)
    only = job.dump()
    job.kill_everything()
    job.start()
    found = until(lambda: restoring(job), "a CRIU that restores", 30)
    found.kill()
    assert job.wait_for_restore()["restored_from"] == only
    job.wait_for_progress(3)


def test_a_restore_whose_criu_is_killed_every_time_ends_in_an_error_rather_than_at_the_start(
    start_job: StartJob, undisturbed: Reference
) -> None:
    command = [*TRAINING, "--memory", "300"]
    job = start_job(command, "--every", "1h")
    job.wait_for_step(5)
    only = job.dump()
    job.wait_for_progress(3)
    job.kill_everything()
    before = job.contents()
    job.start()
    assert job.process is not None
    while job.process.poll() is None:
        if found := restoring(job):
            found.kill()
    assert job.wait() == 125
    assert "nothing is lost" in " ".join(job.said().split())
    assert job.contents() == before
    job.start()
    assert job.wait_for_restore()["restored_from"] == only
    assert job.finish() == 0
    assert job.contents() == undisturbed(command).contents
