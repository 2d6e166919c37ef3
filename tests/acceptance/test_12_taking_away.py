"""Snapshots share packs, yet each is whole in itself: whatever is deleted, and cut off anywhere, the others restore."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Reference
from generations import killed_job, renewing
from harness import Job, environment

from criu_train.archive.stored import StoredPages
from criu_train.store.integrity import verify
from criu_train.store.store import Store

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(180)]

TRAINING, AT_ONCE = (renewing(steps=300, memory_mib=16, delay_s=delay_s) for delay_s in (0.02, 0))
GENERATIONS = 7
RENEWED = 10  # steps between two snapshots, half a MiB each
CUT_OFF = 24  # commands that are killed

# The command line, which kills itself before its n-th step on the disk, or comes to its end.
KILLED_AT = """
import os, signal, sys
left, armed = int(sys.argv.pop(1)), False
def watch(event, arguments):
    global left
    if armed and event in {"os.remove", "os.rmdir", "os.rename", "os.chmod", "os.mkdir", "os.truncate"}:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from criu_train.cli.main import main
armed = True
main()
"""


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    with killed_job(TRAINING, snapshots=GENERATIONS, steps_apart=RENEWED) as job:
        assert shared(job.store) > GENERATIONS, "the snapshots share too little for this to tell anything"
        yield job


def shared(store: Path) -> int:
    return sum(path.stat().st_nlink > 1 for path in store.glob("snapshots/*/packs/*"))


def killed_at(step: int, store: Path, *arguments: str) -> int:
    """Run a command that is killed before this step of it; returns its exit code."""
    argv = [sys.executable, "-c", KILLED_AT, str(step), "--store", str(store), *arguments]
    done = subprocess.run(argv, env=environment(), capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


def complete(store: Path) -> list[str]:
    """Ids of the complete snapshots, oldest first, every byte of which was read and every image put together."""
    found = [one for one in Store.open(store).snapshots() if one.status == "complete"]
    for one in found:
        assert verify(one) == []
        with closing(StoredPages.open(one.path)) as pages:
            pages.check_unused()
            for name in pages.names:
                pages.stream(name, lambda data: None)
    return [one.id for one in found]


def some_command(left: list[str], chance: random.Random) -> list[str]:
    """One that leaves at least one snapshot."""
    if len(left) < 2 or chance.random() < 0.3:
        return ["snapshot", "prune", "--keep", str(chance.randint(1, max(1, len(left) - 1)))]
    gone = chance.sample(left, chance.randint(1, min(3, len(left) - 1)))
    return ["snapshot", "delete", "--force", *gone]


def copies(job: Job, place: Path, chance: random.Random) -> Iterator[Path]:
    """The store again and again, its links to be told from the original's."""
    while True:
        copy = place / f"copy-{chance.random()}"
        subprocess.run(["cp", "-a", str(job.store), str(copy)], check=True)
        yield copy
        shutil.rmtree(copy)


def test_a_killed_deletion_leaves_every_other_snapshot_whole(job: Job, place: Path) -> None:
    chance = random.Random(12)
    killed = 0
    for copy in copies(job, place, chance):
        left = complete(copy)
        assert len(left) == GENERATIONS
        while len(left) > 1 and killed < CUT_OFF:
            command = some_command(left, chance)
            named = {name for name in left if name in command}
            code = killed_at(chance.choice([chance.randrange(8), chance.randrange(90)]), copy, *command)
            killed += code != 0
            before, left = left, complete(copy)
            assert set(left) <= set(before)
            assert before[-1] in left or before[-1] in named, "the newest went without being asked for"
            if command[1] == "delete":
                assert set(before) - set(left) <= named, "a snapshot went that nobody named"
        assert killed_at(10_000, copy, "snapshot", "prune", "--keep", str(GENERATIONS)) == 0
        assert sorted(path.name for path in (copy / "snapshots").iterdir()) == complete(copy) == left
        if killed >= CUT_OFF:
            return


def test_what_deletions_in_any_order_leave_ends_as_the_undisturbed_run(job: Job, undisturbed: Reference) -> None:
    ids = complete(job.store)
    first, second, third, fourth, fifth, sixth, last = ids
    assert killed_at(3, job.store, "snapshot", "delete", fourth) < 0
    assert killed_at(0, job.store, "snapshot", "delete", first) < 0
    assert killed_at(10_000, job.store, "snapshot", "delete", sixth, first) == 0
    assert killed_at(25, job.store, "snapshot", "delete", last) < 0
    assert complete(job.store) == [second, third, fifth]

    for snapshot in (third, fifth, second):  # each for itself; the first ones' packs were made by one that is gone
        job.start(arguments=["restore", snapshot, "--every", "0"])
        assert job.wait_for_restore()["restored_from"] == snapshot
        assert job.finish() == 0
        assert job.contents() == undisturbed(AT_ONCE).contents
