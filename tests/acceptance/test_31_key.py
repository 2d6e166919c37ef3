"""A store with a key: nothing of the training can be read in it, and nothing is restored that the key did not seal."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from blake3 import blake3
from harness import Job, Undisturbed, tell, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = workload("plain.py", "--steps", 1500, "--delay", 0.02, "--memory", 8, "--child", "--loopback")
IN_MEMORY = random.Random(0).randbytes(1 << 20)[8192:8224]  # what the training fills its memory with
LOG_LINE = b'{"step": 1, '
IMAGE_MAGICS = (b"\x19\x43\x56\x54", b"\x40\x59\x10\x55")  # of common and of service images (criu/include/magic.h)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
NOT_OF_THE_TRAINING = ("dump.log.zst", "stats-dump")

StartJob = Callable[..., Job]
Reference = Callable[[Sequence[str]], Undisturbed]


def key_file(place: Path, name: str = "key", data: bytes | None = None) -> Path:
    path = place / name
    path.write_bytes(os.urandom(32) if data is None else data)
    path.chmod(0o600)
    return path


def start_with_key(start_job: StartJob, key: Path, *options: str, **more: str) -> Job:
    return start_job(TRAINING, "--every", "1h", *options, env={"CRIU_TRAIN_KEY_FILE": str(key), **more})


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def readable(directory: Path) -> list[str]:
    """The files in which something of the training can be read, or that are of a form that others read."""
    found = []
    for path in files(directory):
        data = path.read_bytes()
        if IN_MEMORY in data or LOG_LINE in data or data.startswith((*IMAGE_MAGICS, ZSTD_MAGIC)):
            found.append(str(path.relative_to(directory)))
    return [name for name in found if not name.endswith(NOT_OF_THE_TRAINING)]


def outcome_of_one_more_run(job: Job) -> str:
    """Whatever the newest snapshot is: where the run went on from."""
    job.start()
    job.wait_for_state("running")
    return str(job.status()["restored_from"])


def test_an_encrypted_training_is_restored_as_any_other_and_ends_as_the_undisturbed_one(
    start_job: StartJob, place: Path, undisturbed: Reference
) -> None:
    job = start_with_key(start_job, key_file(place))
    for _ in range(2):
        job.wait_for_progress(5)
        job.dump()
    told = job.tell("snapshot", "verify", "--deep", "latest")
    assert told.code == 0, told.text
    job.wait_for_progress(5)
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    job.wait_for_progress(3)
    job.send(signal.SIGTERM)  # and the quick way, where there is no time to compress
    assert job.wait() == 143
    assert readable(job.store / "snapshots") == []
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == undisturbed(TRAINING).contents
    assert job.output() == undisturbed(TRAINING).output


def test_without_a_key_memory_and_files_can_be_read_in_the_store(start_job: StartJob) -> None:
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_step(5)
    job.dump()
    found = readable(job.store / "snapshots")
    assert any("packs/" in name for name in found) and any("images/" in name for name in found)
    assert any("files/" in name for name in found)


@pytest.mark.parametrize("moment", ["dump-saved", "dump-packed"])
def test_at_no_moment_of_a_dump_does_anything_lie_there_unencrypted(
    start_job: StartJob, place: Path, moment: str
) -> None:
    halt = place / "halt"
    halt.mkdir()
    job = start_with_key(start_job, key_file(place), CRIU_TRAIN_HALT_AT=f"{moment}:{halt}")
    job.wait_for_step(5)
    (halt / "armed").touch()
    job.send(signal.SIGUSR1)
    until((halt / "reached").exists, moment)
    assert any(path.parent.name == "files" for path in files(job.store / "snapshots"))
    assert readable(job.store / "snapshots") == []
    (halt / "go").touch()
    job.wait_for_snapshot()


def test_what_does_not_fit_into_memory_goes_to_no_disk_and_the_training_goes_on(
    start_job: StartJob, place: Path
) -> None:
    job = start_with_key(start_job, key_file(place), "--memory-limit", "4M")
    job.wait_for_step(5)
    told = job.tell("dump")
    assert told.code == 125 and "may not go to the disk unencrypted" in told.err and "--memory-limit" in told.err
    job.wait_for_progress(5)


def test_without_the_key_or_with_another_nothing_is_told_and_nothing_started(start_job: StartJob, place: Path) -> None:
    key = key_file(place)
    job = start_with_key(start_job, key)
    job.wait_for_step(5)
    job.dump()
    for env, said in (
        ({}, "the store is encrypted"),
        ({"CRIU_TRAIN_KEY_FILE": str(key_file(place, "other"))}, "not the key"),
    ):
        for call in (
            ["snapshot", "list"],
            ["snapshot", "show", "1"],
            ["snapshot", "verify", "1"],
            ["restore", "--latest"],
            ["run", "--", *TRAINING],
            ["snapshot", "prune", "--keep", "1"],
        ):
            told = tell("--store", str(job.store), *call, cwd=job.work, env=env)
            assert told.code == 125 and said in told.err and "tip:" in told.err and "Traceback" not in told.err, call
    # What needs no snapshot works without.
    assert tell("--store", str(job.store), "dump", cwd=job.work).code == 0
    assert tell("--store", str(job.store), "status", cwd=job.work).code == 0
    assert len(job.complete()) == 2


def change_with_new_checksums(snapshot: Path) -> None:
    """What somebody can do who may write to the disk, but has no key: change an image and make all checksums right."""
    image = snapshot / "images" / "pstree.img"
    data = bytearray(image.read_bytes())
    data[-1] ^= 1
    image.write_bytes(data)
    manifest = (snapshot / "manifest.json").read_text()
    head, _, rest = manifest.partition('"images/pstree.img":[')
    size = rest.partition(",")[0]
    manifest = f'{head}"images/pstree.img":[{size},"{blake3(data).hexdigest()}"]{rest.partition("]")[2]}'
    (snapshot / "manifest.json").write_text(manifest)
    (snapshot / "COMPLETE").write_text(blake3(manifest.encode()).hexdigest() + "\n")


def test_an_image_changed_with_its_checksums_made_right_is_refused_and_an_older_snapshot_restored(
    start_job: StartJob, place: Path
) -> None:
    job = start_with_key(start_job, key_file(place))
    ids = []
    for _ in range(2):
        job.wait_for_progress(5)
        ids.append(job.dump())
    job.kill_everything()
    change_with_new_checksums(job.store / "snapshots" / ids[1])
    told = job.tell("snapshot", "verify", ids[1])
    assert told.code == 1 and "not made with this key, or changed since" in told.text
    told = job.tell("restore", ids[1])
    assert told.code == 125 and "not made with this key, or changed since" in told.text
    assert outcome_of_one_more_run(job) == ids[0]


def test_where_there_is_no_key_only_chance_is_told_by_checksums(start_job: StartJob) -> None:
    """Why a key: without one, who can write to the store can make checksums right."""
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_step(5)
    one = job.dump()
    change_with_new_checksums(job.store / "snapshots" / one)
    assert job.tell("snapshot", "verify", one).code == 0


def test_a_snapshot_of_another_store_with_the_same_key_is_refused(start_job: StartJob, place: Path) -> None:
    key = key_file(place)
    job = start_with_key(start_job, key)
    job.wait_for_step(5)
    own = job.dump()
    other = start_job(
        TRAINING, "--every", "1h", store=place / "other", env={"CRIU_TRAIN_KEY_FILE": str(key)}, name="beside"
    )
    other.wait_for_step(5)
    foreign = other.dump()
    other.kill_everything()
    job.kill_everything()
    shutil.copytree(place / "other" / "snapshots" / foreign, job.store / "snapshots" / f"{foreign[:-1]}9")
    manifest = job.store / "snapshots" / f"{foreign[:-1]}9" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(foreign, f"{foreign[:-1]}9"))
    statuses = {one["id"]: one["status"] for one in job.snapshots()}
    assert statuses == {own: "complete", f"{foreign[:-1]}9": "corrupt"}
    assert outcome_of_one_more_run(job) == own


def test_a_rollback_that_others_made_up_is_not_undone(start_job: StartJob, place: Path) -> None:
    """Undoing one moves files about as root: a record of one must be ours."""
    job = start_with_key(start_job, key_file(place))
    job.wait_for_step(5)
    job.dump()
    job.kill_everything()
    forged = job.store / "rollback" / "20261122T000000Z"
    (forged / "files").mkdir(parents=True, mode=0o700)
    (forged / "files" / "000000").write_text("what root is to run")
    steps = [{"after": "zzz"}, {"verb": "move", "path": str(place / "cron.d"), "kept": "000000"}]
    (forged / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    told = job.tell("run", "--", *TRAINING)
    assert told.code == 125 and "not sealed with this key" in told.err and "tip:" in told.err
    assert not (place / "cron.d").exists()
    shutil.rmtree(forged)
    job.start()
    job.wait_for_restore()


def test_a_file_that_is_no_key_is_refused_with_what_to_do(place: Path) -> None:
    open_to_all = key_file(place, "open")
    open_to_all.chmod(0o644)
    for path, said in (
        (place / "nowhere", "can't be read"),
        (key_file(place, "short", b"secret"), "holds 6 bytes"),
        (open_to_all, "others have rights"),
        (place, "is a directory"),
    ):
        told = tell("--key-file", str(path), "run", "--", "true", cwd=place)
        assert told.code == 2 and said in told.err, told.text
    assert not (place / ".criu-train").exists()


def test_a_store_that_was_made_without_a_key_is_not_taken_for_an_encrypted_one(place: Path) -> None:
    key = key_file(place)
    assert tell("--key-file", str(key), "run", "--", "true", cwd=place).code == 0
    assert json.loads((place / ".criu-train" / "store.json").read_text())["seal_check"]
    assert tell("--store", "plain", "run", "--", "true", cwd=place).code == 0
    told = tell("--store", "plain", "--key-file", str(key), "run", "--", "true", cwd=place)
    assert told.code == 125 and "is not encrypted" in told.err


def test_nothing_leaves_an_encrypted_store_unencrypted(start_job: StartJob, place: Path) -> None:
    job = start_with_key(start_job, key_file(place))
    job.wait_for_step(5)
    job.dump()
    told = job.tell("snapshot", "export", "latest", str(place / "exported"))
    assert told.code == 2 and "can't be exported" in told.err
    assert not (place / "exported").exists()
