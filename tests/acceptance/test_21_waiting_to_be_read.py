"""What waits to be read when the training stands still: CRIU saves no file events and no datagrams."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import StartJob
from harness import Job, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(params=["event", "datagram"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_dump_waits_until_it_has_been_read(start_job: StartJob, kind: str) -> None:
    job = start_job(workload("waiting.py", kind, "attentive", 2000), "--every", "1h")
    job.wait_for_step(10)
    with ThreadPoolExecutor(1) as asking:
        asked = asking.submit(job.dump)
        until(lambda: any(job.store.glob("snapshots/*-000002")), "a second try")
        (job.place / "read").touch()
        identity = asked.result()
    assert notes(job, identity) == []
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert json.loads((job.work / "read.json").read_text()) == ["letter"]


def test_where_it_is_never_read_a_snapshot_is_taken_all_the_same_and_says_so(start_job: StartJob, kind: str) -> None:
    job = start_job(workload("waiting.py", kind, "deaf", 2000), "--every", "1h")
    job.wait_for_step(10)
    first, second = job.dump(), job.dump()
    for identity in (first, second):
        assert ["waiting to be read" in note for note in notes(job, identity)] == [True]
    assert number(second) == number(first) + 1, "it stood still more than once although that was of no use before"
    assert job.finish() == 0
    assert json.loads((job.work / "read.json").read_text()) == ["letter"]


def notes(job: Job, identity: str) -> list[str]:
    return next(list(one["notes"]) for one in job.events() if one["event"] == "dumped" and one["snapshot"] == identity)


def number(identity: str) -> int:
    return int(identity.rpartition("-")[2])
