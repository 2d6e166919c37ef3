"""Disasters again and again during one long training: it ends as if there had been none, and nothing grows.

``SOAK_MINUTES`` (scripts/soak) of disasters make it long; else it is over in a minute and a half. ``SOAK_SEED`` repeats
the order of the disasters of an earlier run, ``SOAK_RESULTS`` names a directory for all that was seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from math import inf
from pathlib import Path

import psutil
import pytest
from faults.disasters import DISASTERS, Disaster, Reference, StartJob
from faults.machine import STRUCK_S
from harness import Job, until, workload

from soak.sampling import WATCHED, Sampler
from soak.series import Series, table

MINUTES = float(os.environ.get("SOAK_MINUTES", "0"))
LONG = MINUTES > 0
SECONDS = 60 * MINUTES if LONG else 45.0
EVERY_S, DUMPED_EVERY = (30.0, "5s") if LONG else (9.0, "2s")
# At first nothing happens for so many dumps, so that each process has one life that is long enough to tell where it
# goes. A busy machine may take its time.
CALM_DUMPS, CALM_LIMIT_S = (24, 300.0) if LONG else (9, 90.0)
STEPS_A_EPOCH, MOST_STEPS = 29, 2_000
DELAY_S = max(0.2, SECONDS / MOST_STEPS)
# As long as the soak without a pause, and a little longer.
EPOCHS = 1 + int((SECONDS + CALM_LIMIT_S + 30) / DELAY_S / STEPS_A_EPOCH)
COMMAND = workload("rested_digits.py", "--epochs", EPOCHS, "--delay", f"{DELAY_S:.3f}")
# It dies more often than any training does, at times before its next snapshot.
KEEP = 2
OPTIONS = ("--every", DUMPED_EVERY, "--keep", str(KEEP), "--max-restarts", "1000")
# Those kept, those kept at a restore with an older one, and one that can't be read any more.
MOST_SNAPSHOTS = KEEP + KEEP + 1 + 1
# The others set everybody's clock, need a control group, leave files behind, or wait for the one right moment.
SUDDEN = [one for one in DISASTERS if not one.sets_clock and not one.name.startswith(("oom", "eio", "many"))]

pytestmark = [
    pytest.mark.criu,
    pytest.mark.slow,
    pytest.mark.torch,
    pytest.mark.soak,
    pytest.mark.timeout(900 + 2 * SECONDS),
]

# By how much a life may grow from the median of its first half to that of its second; all else by nothing.
TOLERATED = {
    "supervisor: descriptors": 1,
    # Threads are made when all others are at work, up to a number that depends on the processors.
    "supervisor: threads": 2,
    # What was loaded late, and what an allocator keeps of what it was once given.
    "supervisor: memory, MiB": 8,
    # It holds each file that is written to all the time, as long as it is: a log, the output.
    "init: descriptors": 2,
    # The names of files that it has told of once.
    "init: memory, MiB": 0.5,
    # As much as the largest dump has needed, which depends on how many of the training's processes it met.
    "archivist: memory, MiB": 96,
    # A restored training that does not surely move yet may have to go back: what there was stays, and one more.
    "store: snapshots": 3,
    # A file that is appended to has up to 64 parts, then it is cut anew. There are two of these.
    "a snapshot: parts of saved files": 70,
    # Images of more processes, and packs, which go once three quarters of their pages are not wanted any more.
    "a snapshot: other files": 15,
    "store: MiB": 50,
    # Sockets of the workers that there are just then.
    "temporary files": 4,
    # What the training had written since the snapshot, a few seconds ago.
    "a rollback: KiB": 10,
    "a rollback: files": 4,
}


def strike(job: Job, disaster: Disaster) -> None:
    """As soon as there is somebody to be struck: CRIU is there at times only, and so are workers."""

    def struck() -> bool:
        with contextlib.suppress(AssertionError, psutil.Error):
            heal = disaster.strike(job)
            time.sleep(STRUCK_S if disaster.needs_disk else 0)
            heal()
            return True
        return False

    until(struck, f"{disaster} to be possible\n{job.history()}", 60)


def in_random_order(dice: random.Random) -> Iterator[Disaster]:
    """Each of them once, then each of them again."""
    while True:
        yield from dice.sample(SUDDEN, len(SUDDEN))


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
        self.samples = 0
        self.series: dict[str, Series] = {}

    def watch(self, seconds: float, samples: float = inf) -> None:
        """For so long, or until there are so many samples."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.samples < samples:
            time.sleep(0.1)
            again_if_ended(self._job)
            if (dumps := self._job.newest()) > self._dumps and (readings := self._sampler.look()) is not None:
                self._dumps = dumps
                self.samples += 1
                for name, reading in readings.items():
                    series = self.series.setdefault(name, Series(name, TOLERATED.get(name, 0.0)))
                    series.add(time.monotonic() - self._began, dumps, reading)


@pytest.mark.parametrize("small_disk", ["1g"], indirect=True)
def test_disasters_again_and_again_change_nothing_and_nothing_grows(
    start_job: StartJob, place: Path, small_disk: Path, undisturbed: Reference
) -> None:
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 32))
    print(f"SOAK_SEED={seed}, {SECONDS:.0f} s: {' '.join(COMMAND)}")
    temporary = place / "tmp"
    temporary.mkdir()
    job = start_job(COMMAND, *OPTIONS, store=small_disk / "store", env={"TMPDIR": str(temporary)})
    job.wait_for_snapshot()
    record = Record(job, temporary)
    record.watch(CALM_LIMIT_S, samples=CALM_DUMPS)
    began = time.monotonic()
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
    assert len({snapshot["run"] for snapshot in job.complete()}) == 1, f"a cold start\n{job.history()}"
    assert all(record.series[f"{who}: descriptors"].lives for who in WATCHED), "nobody was seen long enough"
    most = max(point.value for point in record.series["store: snapshots"].points)
    assert most <= MOST_SNAPSHOTS, f"{most:g} snapshots at a time"
    growing = [f"{one.name} by {one.growth:.3g}, {one.tolerated:g} tolerated" for one in several if not one.flat]
    assert not growing, f"growing: {'; '.join(growing)}"
