"""A training that helps a little: dumps between two steps, checkpoints it asks for, and proof of its state."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import Job, Undisturbed, torchrun, until, workload

from criu_train.store.store import Store
from criu_train.workspace.blobs import BlobReader
from criu_train.workspace.listing import listing_of

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(240)]

StartJob = Callable[..., Job]
Reference = Callable[..., Undisturbed]
DDP = torchrun("--steps", 100_000, "--delay", 0.005, "--hooks")


def lines(job: Job, file: str) -> list[dict[str, Any]]:
    path = job.work / file
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def manifest(job: Job, snapshot: str) -> dict[str, Any]:
    return dict(json.loads((job.store / "snapshots" / snapshot / "manifest.json").read_text()))


def saved(job: Job, snapshot: str, *names: str) -> Mapping[str, bytes]:
    """Files of the training as they were at the cut."""
    one = Store.open(job.store).find(snapshot)
    reader, found = BlobReader(one.files, one.seal), {}
    for entry in listing_of(one).entries:
        if entry.path.startswith(str(job.work)) and (name := Path(entry.path).name) in names:
            whole = bytearray(entry.size)
            at = 0
            for part in entry.parts or ():
                data = reader.read(part, memoryview(bytearray(part.size)))
                whole[at : at + part.size] = data
                at += part.size
            found[name] = bytes(whole)
    return found


def test_dumps_fall_between_two_steps_and_hooks_are_called_around_them(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(workload("hooked.py", "--steps", 400, "--delay", 0.05), "--every", "1h")
    for generation in range(3):
        job.wait_for_progress(5)
        dumped = job.dump()
        told = manifest(job, dumped)
        metrics = saved(job, dumped, "metrics.jsonl")["metrics.jsonl"].splitlines()
        assert (told["aligned"], told["step"]) == (True, json.loads(metrics[-1])["step"])
        assert told["metrics"] == {"loss": json.loads(metrics[-1])["loss"]}
        assert 0 <= told["parked_us"] < 500_000
        assert len(told["hooks"]["digests"]) == 1
        job.wait_for_progress(3)
        assert [one["hook"] for one in lines(job, "calls.jsonl")[1:]][-2:] == ["before_dump", "after_dump"]
        job.kill_everything()
        job.start()
        job.wait_for_restore()
        until(lambda: lines(job, "calls.jsonl")[-1]["hook"] == "after_restore", "the hook after a restore")
        assert lines(job, "calls.jsonl")[-1] == {"hook": "after_restore", "generation": generation + 1}
    assert job.finish() == 0
    assert lines(job, "metrics.jsonl") == lines_of(undisturbed(job.command).contents, job)
    event = next(one for one in job.events() if one["event"] == "dumped")
    assert (event["aligned"], event["parked_us"]) == (True, manifest(job, event["snapshot"])["parked_us"])


def lines_of(contents: Mapping[str, str], job: Job) -> list[dict[str, Any]]:
    """Those of the undisturbed run; its digests of files would tell of a difference, but not of which."""
    assert job.contents()["metrics.jsonl"] == contents["metrics.jsonl"]
    return lines(job, "metrics.jsonl")


@pytest.mark.parametrize("wait", [True, False], ids=["wait", "no-wait"])
def test_a_checkpoint_returns_once_in_the_original_and_once_in_each_restored_process(
    start_job: StartJob, wait: bool, request: pytest.FixtureRequest
) -> None:
    seed = int(os.environ.get("CHECKPOINT_SEED", random.randrange(1 << 32)))
    print(f"CHECKPOINT_SEED={seed}")
    chance, kills = random.Random(seed), int(os.environ.get("CHECKPOINT_KILLS", "4"))
    command = workload("hooked.py", "--steps", 90, "--delay", 0.02, "--checkpoint-every", 15)
    job = start_job([*command, *([] if wait else ["--no-wait"])], "--every", "0", "--keep", "20")
    for _ in range(kills):
        time.sleep(chance.uniform(0.5, 3.2))
        if job.process is not None and job.process.poll() is not None:
            break
        job.kill_everything()
        if len(each_once(job)) == 6:
            return  # it may just have ended well, and the same command would begin a new run
        if job.newest() == 0:  # it begins again, on files that a cold start leaves as they are
            (job.work / "returns.jsonl").unlink(missing_ok=True)
        job.start()
    assert job.wait() == 0
    returned = each_once(job)
    assert [one["step"] for one in returned] == [14, 29, 44, 59, 74, 89]
    assert all(one["id"] and not one["problem"] for one in returned)
    restored_from = [event["snapshot"] for event in job.events() if event["event"] == "restored"]
    complete = {one["id"]: one for one in job.complete()}
    for one in returned:
        # What was restored last, and lies on the way to the end, is what this return is of.
        assert one["restored"] == (one["generation"] > 0 and one["id"] == restored_from[one["generation"] - 1])
        assert complete[one["id"]]["step"] == one["step"]
        assert complete[one["id"]]["trigger"] == "hook"


def each_once(job: Job) -> list[dict[str, Any]]:
    returned = lines(job, "returns.jsonl")
    steps = [one["step"] for one in returned]
    assert steps == sorted(set(steps)), f"a checkpoint returned twice or not at all: {steps}"
    assert steps == [15 * number + 14 for number in range(len(steps))]
    return returned


def test_a_state_that_is_not_the_one_that_was_saved_is_noticed_and_an_older_snapshot_restored(
    start_job: StartJob,
) -> None:
    job = start_job(workload("hooked.py", "--steps", 300, "--delay", 0.02), "--every", "1h")
    job.wait_for_step(5)
    good = job.dump()
    (job.place / "tamper").touch()
    job.send(signal.SIGUSR1)
    until((job.place / "digested").exists, "the digest")
    root, address = int(job.status()["root_pid"]), int((job.place / "address").read_text())
    with open(f"/proc/{root}/mem", "r+b", buffering=0) as memory:
        memory.seek(address + 2000)
        memory.write(b"\x01")
    (job.place / "tamper").unlink()
    bad = job.wait_for_snapshot(after=job.newest())["id"]
    job.kill_everything()
    job.start()
    assert job.wait_for_restore()["restored_from"] == good
    [attempts] = [event["attempts"] for event in job.events() if event["event"] == "restore"]
    assert [(one["snapshot"], one["reason"] is None) for one in attempts] == [(bad, False), (good, True)]
    assert "is not the one that was saved" in attempts[0]["reason"]
    assert job.finish() == 0


def test_a_supervisor_that_is_killed_while_the_training_is_parked_holds_it_for_ten_seconds_only(
    start_job: StartJob,
) -> None:
    job = start_job(workload("hooked.py", "--steps", 2000, "--delay", 0.02), "--every", "1h")
    job.wait_for_step(5)
    (job.place / "tamper").touch()
    job.send(signal.SIGUSR1)
    until((job.place / "digested").exists, "the digest")
    job.kill_supervisor()
    (job.place / "tamper").unlink()
    job.wait_for_progress(5, deadline_s=30)
    assert lines(job, "calls.jsonl")[-1]["hook"] == "after_dump"
    job.start()
    job.wait_for_state("running")
    job.wait_for_progress(3)
    assert manifest(job, job.dump())["aligned"]
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0


def meeting_places() -> set[Path]:
    return set(Path("/run/criu-train-hooks").glob("*/*"))


def test_generations_are_counted_on_and_what_nobody_supervises_can_be_restored_on_trial(start_job: StartJob) -> None:
    others = meeting_places()  # of trainings that were killed together with their supervisors
    job = start_job(workload("hooked.py", "--steps", 2000, "--delay", 0.02), "--every", "1h", "--prove", "newest")
    job.wait_for_step(5)
    assert meeting_places() - others
    job.dump()
    until(lambda: job.snapshots()[-1]["proven"], "the proof beside the training", 60)
    for generation in (1, 2):  # twice from the same snapshot
        os.kill(int(job.status()["root_pid"]), signal.SIGKILL)
        until(partial(has_restored, job, generation), "the hook after the restore", 60)
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    assert meeting_places() == others
    told = job.tell("snapshot", "verify", "--deep", "latest", limit_s=120)
    assert told.code == 0, told.text
    assert job.snapshots()[-1]["proven"] is True
    job.start()
    job.wait_for_restore()
    until(partial(has_restored, job, 3), "the hook after the restore", 60)
    assert job.finish() == 0


def has_restored(job: Job, generation: int) -> bool:
    return lines(job, "calls.jsonl")[-1].get("generation") == generation


@pytest.mark.parametrize("small_disk", ["1m"], indirect=True)
def test_a_checkpoint_for_which_there_is_no_room_tells_why_and_the_training_goes_on(
    start_job: StartJob, small_disk: Path
) -> None:
    command = workload("hooked.py", "--steps", 60, "--delay", 0.02, "--checkpoint-every", 25)
    job = start_job(command, "--every", "0", store=small_disk / "store")
    assert job.wait() == 0
    returned = lines(job, "returns.jsonl")
    assert [one["id"] for one in returned] == [None, None]
    assert all(one["problem"] for one in returned)


@pytest.mark.torch
def test_with_hooks_dumps_of_ranks_fall_between_the_same_two_steps(start_job: StartJob) -> None:
    dumps = int(os.environ.get("ALIGNED_DUMPS", "6"))
    job = start_job(DDP, "--every", "1h", "--keep", "3")
    job.wait_for_step(20, "rank1.jsonl")
    for number in range(dumps):
        dumped = job.dump()
        told, files = manifest(job, dumped), saved(job, dumped, "inside0.bin", "inside1.bin")
        places = {struct.unpack("qq", data) for data in files.values()}
        assert len(files) == 2 and len(places) == 1, f"dump {number}: {places}"
        [(step, inside)] = places
        assert (told["aligned"], told["step"], inside) == (True, step, 0), f"dump {number}"
        job.wait_for_progress(random.randrange(1, 9), "rank1.jsonl")
        if number == dumps // 2:
            job.kill_everything()
            job.start()
            job.wait_for_restore()
            job.wait_for_progress(5, "rank1.jsonl")
