"""Snapshots in other forms restore as well: those of the first version, and those that were exported."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Reference, StartJob
from generations import dump, renewing
from harness import Job, environment, until, workload

from criu_train.archive.zstd import decompress_into
from criu_train.criu.find import find_criu
from criu_train.store.blob import parse
from criu_train.store.digest import digest_bytes, digest_file

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING, AT_ONCE = (renewing(steps=300, memory_mib=32, delay_s=delay_s) for delay_s in (0.02, 0))
CHILD = workload("plain.py", "--steps", 200, "--delay", 0.02, "--child", "--memory", 20)


# -- the first version --------------------------------------------------------------------------------------------


def make_first_version(snapshot: Path, exported: Path) -> None:
    """Turn a snapshot into what was written before there were packs: every file as it is, a manifest of all of them."""
    facts = json.loads((snapshot / "manifest.json").read_bytes())
    shutil.rmtree(snapshot / "packs")
    for name in ("pages.index", "dump.log.zst", "manifest.json", "COMPLETE"):
        (snapshot / name).unlink()
    for image in exported.glob("*.img"):
        shutil.copyfile(image, snapshot / "images" / image.name)
    for path in (snapshot / "files").iterdir():
        make_plain(path)
    (snapshot / "dump.log").write_text("what CRIU told\n")

    covered = [*snapshot.glob("images/*.img"), *snapshot.glob("files/*"), snapshot / "listing.json"]
    files = {str(path.relative_to(snapshot)): [path.stat().st_size, digest_file(path)] for path in covered}
    new = {"version": 1, "files": files, "stored_bytes": sum(path.stat().st_size for path in covered)}
    old = {name: fact for name, fact in facts.items() if name not in ("added_bytes", "spilled_bytes")}
    manifest = json.dumps(old | new, separators=(",", ":")).encode() + b"\n"
    (snapshot / "manifest.json").write_bytes(manifest)
    (snapshot / "COMPLETE").write_text(digest_bytes(manifest) + "\n")


def make_plain(path: Path) -> None:
    """A blob as the first version wrote it, named by what it holds."""
    blob = parse(path.name)
    assert blob is not None
    if blob.is_compressed:
        space = bytearray(16 << 20)
        length = decompress_into(path.read_bytes(), memoryview(space))
        path.with_name(blob.content).write_bytes(space[:length])
        path.unlink()


def test_a_snapshot_of_the_first_version_is_gone_on_from(
    start_job: StartJob, undisturbed: Reference, place: Path
) -> None:
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_step(20)
    snapshot = dump(job)
    job.wait_for_progress(5)
    job.kill_everything()
    assert job.tell("snapshot", "export", snapshot, str(place / "exported")).code == 0
    make_first_version(job.store / "snapshots" / snapshot, place / "exported")
    assert [one["status"] for one in job.snapshots()] == ["complete"]
    assert job.tell("snapshot", "verify", snapshot).code == 0

    job.start()
    assert job.wait_for_restore()["restored_from"] == snapshot
    assert dump(job) > snapshot, "one of the new form follows"
    job.kill_everything()
    job.start()
    assert job.wait_for_restore()["restored_from"] > snapshot
    assert job.finish() == 0
    assert job.contents() == undisturbed(AT_ONCE).contents


# -- exported snapshots -------------------------------------------------------------------------------------------


def preempted(start_job: StartJob, command: list[str], store: Path) -> Job:
    """A job that ended with a snapshot; its files are as they were at the cut."""
    job = start_job(command, "--every", "1h", store=store)
    job.wait_for_step(20)
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    return job


@contextlib.contextmanager
def restored_by_criu(images: Path, log: Path, work: Path) -> Iterator[None]:
    """Plain `criu restore` of a directory of images, in PID and mount namespaces of their own."""
    restore = [*find_criu().command, "restore", "-D", str(images), "-o", str(log), "--restore-detached"]
    fresh = ["unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]
    init = ["sh", "-c", '"$@" && exec sleep 60', "sh"]
    cell = subprocess.Popen([*fresh, *init, *restore], cwd=work, env=environment(), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        cell.kill()
        cell.wait(30)


@pytest.mark.parametrize("command", [TRAINING, CHILD], ids=["one process", "two processes"])
def test_plain_criu_restores_what_was_exported(
    start_job: StartJob, undisturbed: Reference, place: Path, command: list[str]
) -> None:
    job = preempted(start_job, command, place / "store")
    assert job.tell("snapshot", "export", "latest", str(place / "exported")).code == 0
    (place / "exported" / "criu-train").rename(place / "ours")  # CRIU needs nothing of this
    with restored_by_criu(place / "exported", place / "restore.log", job.work):
        weights = job.work / "weights.json"
        until(lambda: weights.exists() and weights.read_bytes().endswith((b"}", b"]")), "the end of the training")
    assert job.contents() == undisturbed(command).contents
    assert job.output() == undisturbed(command).output


def test_another_store_takes_an_export_in_and_goes_on_from_it(
    start_job: StartJob, undisturbed: Reference, place: Path
) -> None:
    job = preempted(start_job, TRAINING, place / "store")
    exported = place / "exported"
    assert job.tell("snapshot", "export", "latest", str(exported)).code == 0
    job.kill_everything()
    shutil.rmtree(job.store)
    (job.work / "metrics.jsonl").unlink()
    (job.work / "noise.bin").write_bytes(b"spoilt")

    other = Job(job.place, TRAINING, "--every", "1h", store=place / "other")
    imported = other.tell("snapshot", "import", str(exported))
    assert imported.code == 0, imported.text
    shutil.rmtree(exported)
    assert [one["status"] for one in other.snapshots()] == ["complete"]
    assert other.tell("snapshot", "verify", "latest").code == 0

    other.start()
    try:
        first = other.wait_for_restore()["restored_from"]
        other.wait_for_progress(5)
        second = dump(other)
        assert second > first
        other.wait_for_progress(5)
        other.kill_everything()
        other.start()
        assert other.wait_for_restore()["restored_from"] == second
        assert other.finish() == 0
        assert other.contents() == undisturbed(AT_ONCE).contents
    finally:
        other.close()
