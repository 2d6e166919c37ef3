"""Each disaster at each moment of a dump and of a restore: whatever it is, the training ends as if it had not been.

``FAULT_RESULTS`` names a directory to which the outcome of each case goes, for the table in docs/reliability.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import Job, until, workload

from criu_train.moments import DUMP, RESTORE
from faults.disasters import DISASTERS, Disaster, Reference, StartJob
from faults.machine import clock_is_set_right

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(150)]

COMMAND = workload("plain.py", "--steps", 3000, "--delay", 0.02, "--loopback", "--child", "--memory", 8)
COMPLETE_FROM = DUMP.index("after-marker")
# What scripts/test has time for.
SHORT_MOMENTS = ("dump-frozen", "dump-packing", "before-marker", "after-marker", "rollback-step", "restored")
SHORT_DISASTERS = ("kill-supervisor", "kill-archivist", "kill-everything")


@dataclass(frozen=True)
class Case:
    moment: str
    disaster: Disaster

    def __str__(self) -> str:
        return f"{self.moment}-{self.disaster}"

    @property
    def short(self) -> bool:
        return self.moment in SHORT_MOMENTS and self.disaster.name in SHORT_DISASTERS


def cases(moments: Sequence[str], of: Callable[[Disaster], Sequence[str]]) -> list[Any]:
    return [
        pytest.param(case, id=str(case), marks=[pytest.mark.short] if case.short else [])
        for moment in moments
        for disaster in DISASTERS
        if moment in of(disaster) and (case := Case(moment, disaster))
    ]


class Halt:
    """The moment at which one process of the job waits for us."""

    def __init__(self, place: Path, moment: str) -> None:
        self.directory = place / "halt"
        self.directory.mkdir()
        self.env = {"CRIU_TRAIN_HALT_AT": f"{moment}:{self.directory}"}

    def arm(self) -> None:
        (self.directory / "armed").touch()

    def wait(self, job: Job) -> None:
        until((self.directory / "reached").exists, f"the moment\n{job.history()}", 30)

    def release(self) -> None:
        (self.directory / "go").touch()


@pytest.fixture
def case(request: pytest.FixtureRequest, place: Path) -> Iterator[Case]:
    """With a disk of its own for the store, where the disaster concerns that."""
    case: Case = request.param
    disk = place / "disk"
    disk.mkdir()
    if case.disaster.needs_disk:
        request.getfixturevalue("small_disk_for_faults")
    with clock_is_set_right() if case.disaster.sets_clock else contextlib.nullcontext():
        yield case


@pytest.fixture
def small_disk_for_faults(place: Path) -> Iterator[None]:
    import subprocess

    disk = str(place / "disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=700", "small", disk], check=True)
    yield
    subprocess.run(["umount", "--lazy", disk], check=True)


def note(case: Case, outcome: str) -> None:
    if directory := os.environ.get("FAULT_RESULTS"):
        told = {"moment": case.moment, "disaster": case.disaster.name, "outcome": outcome}
        Path(directory, f"{case}.json").write_text(json.dumps(told))


def running(job: Job) -> psutil.Process:
    """The root task, once the job is at work again."""
    until(lambda: job.supervisor().get("state") in ("running", "dumping"), f"it to run\n{job.history()}", 60)
    return psutil.Process(job.wait_for_pid("root_pid"))


def again_if_ended(job: Job) -> None:
    """Whoever lost the supervisor gives the same command again."""
    with contextlib.suppress(AssertionError):
        until(lambda: has_ended(job), "an end", 0.5)
    if has_ended(job):
        job.start()


def has_ended(job: Job) -> bool:
    return job.process is not None and job.process.poll() is not None


def no_marker_covers_too_much(job: Job) -> None:
    """Before anybody tidies up: a marker is there only once all is there that it vouches for."""
    statuses = {snapshot["id"]: snapshot["status"] for snapshot in job.snapshots()}
    assert "corrupt" not in statuses.values(), statuses


def as_if_nothing_had_been(job: Job, undisturbed: Reference) -> None:
    assert job.finish() == 0, job.history()
    assert job.contents() == undisturbed(COMMAND).contents
    assert job.output() == undisturbed(COMMAND).output
    assert len({snapshot["run"] for snapshot in job.complete()}) == 1, f"a cold start\n{job.history()}"
    no_marker_covers_too_much(job)
    assert "something unexpected" not in job.history()


@pytest.mark.parametrize("case", cases(DUMP, lambda one: one.dumps), indirect=True)
def test_a_disaster_during_a_dump_costs_at_most_that_dump(
    start_job: StartJob, place: Path, case: Case, undisturbed: Reference
) -> None:
    halt = Halt(place, case.moment)
    job = start_job(COMMAND, "--every", "1h", "--keep", "1", store=place / "disk" / "store", env=halt.env)
    job.wait_for_step(3)
    job.dump()
    before = running(job)
    halt.arm()
    job.send(signal.SIGUSR1)
    halt.wait(job)
    heal = case.disaster.strike(job)
    halt.release()
    heal()
    no_marker_covers_too_much(job)
    again_if_ended(job)
    if not (case.disaster.ends_supervisor or case.disaster.silent):
        ends = ("dumped", "dump_failed", "died", "restore", "interrupted")
        until(lambda: sum(event["event"] in ends for event in job.events()) > 1, f"a sign\n{job.history()}", 60)
    after = running(job)
    job.wait_for_progress(3)
    if case.disaster.harmless:
        assert after == before, f"the training did not survive\n{job.history()}"
    second_is_complete = DUMP.index(case.moment) >= COMPLETE_FROM
    assert not second_is_complete or job.newest() >= 2, "a complete snapshot was lost"
    outcome = "unharmed" if after == before else f"restored from snapshot {restored_from(job)}"
    assert after == before or not second_is_complete or restored_from(job) == 2
    job.dump()
    job.wait_for_progress(3)
    as_if_nothing_had_been(job, undisturbed)
    case.disaster.leaves(job)
    note(case, outcome)


def restored_from(job: Job) -> int:
    return int(str(job.status()["restored_from"]).rpartition("-")[2])


@pytest.mark.parametrize("case", cases(RESTORE, lambda one: one.restores), indirect=True)
def test_a_disaster_during_a_restore_is_followed_by_another_restore(
    start_job: StartJob, place: Path, case: Case, undisturbed: Reference
) -> None:
    halt = Halt(place, case.moment)
    job = start_job(COMMAND, "--every", "1h", store=place / "disk" / "store", env=halt.env)
    for _ in range(2):
        job.wait_for_progress(3)
        job.dump()
    job.wait_for_progress(3)
    job.kill_everything()
    halt.arm()
    job.start()
    halt.wait(job)
    heal = case.disaster.strike(job)
    halt.release()
    heal()
    until(lambda: has_ended(job) or job.supervisor().get("state") == "running", f"an end\n{job.history()}", 60)
    if has_ended(job):
        job.start()
    job.wait_for_restore()
    job.wait_for_progress(3)
    assert restored_from(job) == 2, f"the newest snapshot was passed over\n{job.history()}"
    outcome = f"restored from snapshot {restored_from(job)}"
    as_if_nothing_had_been(job, undisturbed)
    case.disaster.leaves(job)
    note(case, outcome)
