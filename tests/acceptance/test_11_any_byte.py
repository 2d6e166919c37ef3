"""Whichever byte of a snapshot rots, it is noticed before a process runs on it, and an older snapshot is taken."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Reference
from flips import Spot, files, frames, spots
from generations import directories, killed_job, renewing
from harness import Job

from criu_train.archive.stored import StoredPages
from criu_train.errors import CriuTrainError
from criu_train.store.snapshot import INDEX, read_snapshot
from criu_train.supervisor.fitting import verified

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING, AT_ONCE = (renewing(steps=400, memory_mib=48, delay_s=delay_s) for delay_s in (0.02, 0))
RENEWED = 20  # steps between two snapshots, half a MiB each: whole frames of older packs fall out of use


@pytest.fixture(scope="module")
def killed() -> Iterator[Job]:
    with killed_job(TRAINING, snapshots=3, steps_apart=RENEWED) as job:
        yield job


# -- two hundred bytes --------------------------------------------------------------------------------------------


class Sink:
    """Takes an image as CRIU would, and sees that not one wrong byte comes."""

    def __init__(self, truth: bytes | None) -> None:
        self.truth = truth
        self.got = bytearray()

    def write(self, data: memoryview) -> None:
        if self.truth is not None:
            at = len(self.got)
            assert data == memoryview(self.truth)[at : at + len(data)], "a wrong byte was handed out"
        self.got += data


def go_through(path: Path, truth: dict[str, bytes]) -> dict[str, bytes]:
    """All that a restore reads, in its order; CriuTrainError where it would end. Returns the large images."""
    manifest = verified(read_snapshot(path))
    got = {}
    with closing(StoredPages.open(path, manifest.files[INDEX].digest)) as pages:
        pages.check_unused()
        for name in pages.names:
            sink = Sink(truth.get(name))
            pages.stream(name, sink.write)
            got[name] = bytes(sink.got)
    return got


def is_noticed(spot: Spot, by: int, path: Path, truth: dict[str, bytes]) -> bool:
    spot.flip(path, by)
    try:
        go_through(path, truth)
    except CriuTrainError:
        return True
    finally:
        spot.flip(path, by)
    return False


def test_each_of_two_hundred_flipped_bytes_is_noticed_before_a_process_runs(killed: Job, place: Path) -> None:
    chance = random.Random(20)
    newest = directories(killed)[-1]
    tried = list(spots(newest, chance))
    copy = place / newest.name
    shutil.copytree(newest, copy)
    truth = go_through(copy, {})
    assert sum(map(len, truth.values())) > 48 << 20

    unnoticed = [spot for spot in tried if not is_noticed(spot, chance.randrange(1, 256), copy, truth)]
    assert unnoticed == []
    assert go_through(copy, truth) == truth, "not every byte was put back"

    assert len(tried) >= 200
    assert {spot.name for spot in tried} == set(files(copy))
    kinds = Counter(spot.kind for spot in tried)
    assert {
        *("manifest.json", "COMPLETE", "listing.json", "pages.index", "small image", "plain blob", "compressed blob"),
        *("used frame of its own pack", "used frame of a shared pack", "unused frame of a shared pack"),
        *("records of a pack", "page digests of a pack", "footer of a pack"),
    } == set(kinds), kinds


def test_not_even_the_last_line_break_of_the_marker_may_change(killed: Job, place: Path) -> None:
    newest = directories(killed)[-1]
    copy = place / newest.name
    shutil.copytree(newest, copy)
    last = Spot("COMPLETE", "COMPLETE", (copy / "COMPLETE").stat().st_size - 1)
    assert is_noticed(last, ord("\n") ^ ord(" "), copy, {})


# -- some of them with a whole restore ----------------------------------------------------------------------------


def in_the_manifest(snapshot: Path) -> Spot:
    return Spot("manifest", "manifest.json", 300)


def in_the_listing(snapshot: Path) -> Spot:
    return Spot("listing", "listing.json", 100)


def in_the_index_of_the_pages(snapshot: Path) -> Spot:
    return Spot("index", "pages.index", (snapshot / "pages.index").stat().st_size // 2)


def in_a_small_image(snapshot: Path) -> Spot:
    name = next((snapshot / "images").glob("core-*.img")).name
    return Spot("small image", f"images/{name}", 50)


def in_a_blob(snapshot: Path) -> Spot:
    blob = next(path for path in (snapshot / "files").iterdir() if path.stat().st_nlink == 1)
    return Spot("blob", f"files/{blob.name}", blob.stat().st_size // 2)


def in_its_own_pack(snapshot: Path) -> Spot:
    return next(frame for frame in frames(snapshot) if frame.used and frame.owners == 1).middle


def in_the_tail_of_its_own_pack(snapshot: Path) -> Spot:
    own = next(frame for frame in frames(snapshot) if frame.owners == 1)
    return Spot("tail", own.pack, (snapshot / own.pack).stat().st_size - 60)


def in_a_pack_that_all_need(snapshot: Path) -> Spot:
    needed = [{frame.middle for frame in frames(one) if frame.used} for one in snapshot.parent.iterdir()]
    return min(set.intersection(*needed), key=lambda spot: (spot.name, spot.offset))


OF_THE_NEWEST: list[Callable[[Path], Spot]] = [
    in_the_manifest,
    in_the_listing,
    in_the_index_of_the_pages,
    in_a_small_image,
    in_a_blob,
    in_its_own_pack,
    in_the_tail_of_its_own_pack,
]


def reasons(job: Job) -> dict[str, str | None]:
    """Why each snapshot was passed over by the last start; None for the one that was restored."""
    last = next(event for event in reversed(job.events()) if event["event"] == "restore")
    return {attempt["snapshot"]: attempt["reason"] for attempt in last["attempts"]}


def test_a_byte_that_only_the_newest_has_leads_to_the_one_before(killed: Job) -> None:
    *_, older, newest = directories(killed)
    for where in OF_THE_NEWEST:
        spot = where(newest)
        spot.flip(newest)
        killed.start()
        try:
            assert killed.wait_for_restore()["restored_from"] == older.name, spot
            assert newest.name in killed.said()
        finally:
            killed.kill_everything()
            spot.flip(newest)
        assert reasons(killed)[older.name] is None
        assert "corrupt" in str(reasons(killed)[newest.name]), spot
    killed.start()
    assert killed.wait_for_restore()["restored_from"] == newest.name, "all bytes are as they were again"
    killed.kill_everything()


def test_a_byte_that_all_share_is_told_of_each_and_nothing_runs(killed: Job, undisturbed: Reference) -> None:
    *_, newest = directories(killed)
    spot = in_a_pack_that_all_need(newest)
    before = killed.contents()
    spot.flip(newest)
    try:
        killed.start("--on-restore-failure", "fail")
        assert killed.wait(60) == 125
    finally:
        killed.kill_everything()
        spot.flip(newest)
    assert killed.contents() == before
    assert set(reasons(killed)) == {path.name for path in directories(killed)}
    for name, reason in reasons(killed).items():
        assert "corrupt" in str(reason), reason
        assert name in killed.said()

    killed.start()
    assert killed.wait_for_restore()["restored_from"] == newest.name, "all bytes are as they were again"
    assert killed.finish() == 0
    assert killed.contents() == undisturbed(AT_ONCE).contents
