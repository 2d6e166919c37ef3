"""Disasters again and again during one long training: it ends as if there had been none, and nothing grows.

``SOAK_MINUTES`` (scripts/soak) makes it long; else it is over in a minute and a half. ``SOAK_SEED`` repeats the order
of the disasters of an earlier run, ``SOAK_RESULTS`` names a directory for all that was seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from faults.disasters import DISASTERS, STOPPED_S, Disaster, Reference, StartJob
from harness import Job, until, workload

from soak.sampling import Sampler
from soak.series import Series, table

MINUTES = float(os.environ.get("SOAK_MINUTES", "0"))
LONG = MINUTES > 0
SECONDS = 60 * MINUTES if LONG else 70.0
EVERY_S, DUMPED_EVERY = (30.0, "5s") if LONG else (9.0, "2s")
# At first nothing happens, so that each process has one life that is long enough to tell where it goes.
CALM_S = SECONDS / 4
STEPS_A_EPOCH, MOST_STEPS = 29, 3_000
DELAY_S = max(0.15, SECONDS / MOST_STEPS)
# As long as the soak without a pause, and a little longer.
EPOCHS = 1 + int((SECONDS + 30) / DELAY_S / STEPS_A_EPOCH)
COMMAND = workload("rested_digits.py", "--epochs", EPOCHS, "--delay", f"{DELAY_S:.3f}")
# It dies more often than any training does, at times before its next snapshot.
OPTIONS = ("--every", DUMPED_EVERY, "--max-restarts", "1000")

pytestmark = [
    pytest.mark.criu,
    pytest.mark.slow,
    pytest.mark.torch,
    pytest.mark.soak,
    pytest.mark.timeout(600 + 2 * SECONDS),
]

# Growth a dump that is no leak.
TOLERATED: dict[str, float] = {}


def strike(job: Job, disaster: Disaster) -> None:
    """As soon as there is somebody to be struck: CRIU is there at times only, and so are workers."""

    def struck() -> bool:
        with contextlib.suppress(AssertionError):
            heal = disaster.strike(job)
            time.sleep(STOPPED_S if disaster.needs_disk else 0)
            heal()
            return True
        return False

    until(struck, f"{disaster} to be possible\n{job.history()}", 60)


def in_random_order(dice: random.Random) -> Iterator[Disaster]:
    """Each of them once, then each of them again."""
    while True:
        yield from dice.sample(DISASTERS, len(DISASTERS))


def again_if_ended(job: Job) -> None:
    """Whoever lost the supervisor gives the same command again."""
    if job.process is None or job.process.poll() is not None:
        job.start()


class Record:
    """Samples, one after each dump."""

    def __init__(self, job: Job, temporary: Path) -> None:
        self._job, self._sampler = job, Sampler(job, temporary)
        self._began = time.monotonic()
        self._dumps = 0
        self.series: dict[str, Series] = {}

    def watch(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.1)
            again_if_ended(self._job)
            if (dumps := self._job.newest()) > self._dumps and (readings := self._sampler.look()) is not None:
                self._dumps = dumps
                for name, reading in readings.items():
                    series = self.series.setdefault(name, Series(name, TOLERATED.get(name, 0.0)))
                    series.add(time.monotonic() - self._began, dumps, reading)


@pytest.mark.parametrize("small_disk", ["2g"], indirect=True)
def test_disasters_again_and_again_change_nothing_and_nothing_grows(
    start_job: StartJob, place: Path, small_disk: Path, undisturbed: Reference
) -> None:
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 32))
    print(f"SOAK_SEED={seed}, {SECONDS:.0f} s: {' '.join(COMMAND)}")
    temporary = place / "tmp"
    temporary.mkdir()
    job = start_job(COMMAND, *OPTIONS, store=small_disk / "store", env={"TMPDIR": str(temporary)})
    job.wait_for_snapshot()
    began = time.monotonic()
    record = Record(job, temporary)
    record.watch(CALM_S)
    struck = 0
    for disaster in in_random_order(random.Random(seed)):
        if (left := SECONDS - (time.monotonic() - began)) <= 0:
            break
        print(f"{time.monotonic() - began:6.0f} s, snapshot {job.newest()}: {disaster}", flush=True)
        strike(job, disaster)
        struck += 1
        again_if_ended(job)
        record.watch(min(EVERY_S, left))
    job.wait_for_state("running")
    assert job.steps() < EPOCHS * STEPS_A_EPOCH, "the training ended before the soak"
    assert job.finish(300) == 0, job.history()

    several = list(record.series.values())
    told = f"{SECONDS / 60:.3g} minutes, {struck} disasters, {job.newest()} snapshots:\n\n{table(several)}"
    print(told)
    if directory := os.environ.get("SOAK_RESULTS"):
        Path(directory, "table.md").write_text(told + "\n")
        Path(directory, "points.json").write_text(json.dumps([asdict(one) for one in several]))
    assert job.contents() == undisturbed(COMMAND).contents
    assert job.output() == undisturbed(COMMAND).output
    assert len({snapshot["run"] for snapshot in job.snapshots()}) == 1, f"a cold start\n{job.history()}"
    assert not (unseen := [one.name for one in several if not one.lives]), unseen
    growing = [f"{one.name} by {one.growth:.3g}, {one.tolerated:g} tolerated" for one in several if not one.flat]
    assert not growing, f"growing: {'; '.join(growing)}"
