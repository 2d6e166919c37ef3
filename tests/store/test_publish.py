"""What stands in the store after a publish, and after one that was cut off."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest
from store_samples import FILES, PACK, ForgetfulDisk, FullDisk, add, die_at, facts, fill, mode

from criu_train.errors import DumpFailedError
from criu_train.store.digest import digest_bytes
from criu_train.store.draft import Draft
from criu_train.store.dump_log import read_log
from criu_train.store.durable import Disk
from criu_train.store.integrity import verify
from criu_train.store.manifest import ExternalFile, Manifest
from criu_train.store.snapshot import is_live
from criu_train.store.store import Store

POINTS = ["images-synced", "manifest-written", "before-marker", "after-marker"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


def test_a_published_snapshot_is_complete_and_its_manifest_tells_everything(store: Store) -> None:
    snapshot = add(store, trigger="signal", step=7, metrics={"loss": 0.25}, notes=("not saved: /data/big",))
    assert (snapshot.status, snapshot.reason) == ("complete", None)
    manifest = Manifest.from_json((snapshot.path / "manifest.json").read_bytes())
    assert manifest == snapshot.manifest
    assert (manifest.id, manifest.sequence, manifest.run, manifest.trigger) == (snapshot.id, 1, "run-1", "signal")
    assert (manifest.command, manifest.step, manifest.metrics) == (("python", "train.py"), 7, {"loss": 0.25})
    assert manifest.external == (ExternalFile("/usr/lib/libc.so.6", 1_900_000, 123, 0o100755, "ab" * 20),)
    assert {name: stored.size for name, stored in manifest.files.items()} == {n: len(d) for n, d in FILES.items()}
    assert {name: stored.digest for name, stored in manifest.files.items()} == {
        n: digest_bytes(d) for n, d in FILES.items()
    }
    assert manifest.stored_bytes == sum(map(len, FILES.values()))
    assert manifest.created_at == snapshot.created_at
    assert verify(snapshot) == []


def test_the_marker_is_the_digest_of_the_manifest(store: Store) -> None:
    snapshot = add(store)
    marker = (snapshot.path / "COMPLETE").read_text()
    assert marker == digest_bytes((snapshot.path / "manifest.json").read_bytes()) + "\n"


def test_a_power_cut_at_any_moment_of_a_publish_leaves_whole_snapshots_or_incomplete_ones(tmp_path: Path) -> None:
    before = add(Store.create_or_open(tmp_path / "store"))
    seen = set()

    class Disk(ForgetfulDisk):
        def look(self, left_by_the_cut: Path) -> None:
            states = {}
            for one in Store.open(left_by_the_cut).snapshots():
                states[one.sequence] = one.status
                assert one.status == "incomplete" or verify(one) == []
            assert states[before.sequence] == "complete"
            seen.add(states.get(2, "absent"))

    disk = Disk(tmp_path / "store", tmp_path / "cut")
    disk.remember_all()
    draft = Store.open(tmp_path / "store", disk).new_draft("run-1", "timer")
    fill(draft)
    draft.publish(facts())
    assert seen == {"absent", "incomplete", "complete"}
    assert disk.outcomes > 30


def test_a_power_cut_right_after_a_publish_leaves_the_snapshot_complete(tmp_path: Path) -> None:
    Store.create_or_open(tmp_path / "store")
    found = []

    class Disk(ForgetfulDisk):
        def look(self, left_by_the_cut: Path) -> None:
            found.append({one.id: verify(one) for one in Store.open(left_by_the_cut).snapshots()})

        def reached(self, point: str) -> None:
            if point == "after-marker":
                self.cut()

        def fsync(self, path: Path) -> None:
            self.remember(path)

        def rename(self, old: Path, new: Path) -> None:
            old.rename(new)

    disk = Disk(tmp_path / "store", tmp_path / "cut")
    disk.remember_all()
    snapshot = add(Store.open(tmp_path / "store", disk))
    assert found == [{snapshot.id: []}] * 3


def test_a_store_that_is_taken_away_right_after_the_marker_makes_a_publish_no_failure(tmp_path: Path) -> None:
    Store.create_or_open(tmp_path / "store")

    class Taken(Disk):
        def reached(self, point: str) -> None:
            if point == "after-marker":
                (tmp_path / "store").rename(tmp_path / "away")

    snapshot = add(Store.open(tmp_path / "store", Taken()))
    assert (snapshot.status, snapshot.manifest and snapshot.manifest.id) == ("complete", snapshot.id)
    assert verify(Store.open(tmp_path / "away").find("latest")) == []


@pytest.mark.parametrize("point", POINTS)
def test_a_supervisor_killed_while_it_publishes_leaves_the_previous_snapshot_complete(store: Store, point: str) -> None:
    previous = add(store)
    die_at(point, store.layout.root, "publish")
    first, second = store.snapshots()
    assert (first.id, first.status, verify(first)) == (previous.id, "complete", [])
    if point == "after-marker":
        assert (second.status, verify(second)) == ("complete", [])
    else:
        assert (second.status, second.reason) == ("incomplete", "its dump was cut off")
        assert verify(second) == ["its dump was cut off"]
        assert store.prune(5) == [second.id]
    assert add(store).sequence == 3


@pytest.mark.parametrize("nth", [2, 5, 8, 12, 13, 15])
def test_a_full_disk_fails_the_dump_and_leaves_only_the_log_and_the_reason(store: Store, nth: int) -> None:
    previous = add(store)
    full = Store.open(store.layout.root)
    draft = full.new_draft("run-1", "timer")
    fill(draft)
    draft._disk = FullDisk(nth)
    with pytest.raises(DumpFailedError, match="No space left on device") as caught:
        draft.publish(facts())
    draft.discard(str(caught.value))
    first, second = store.snapshots()
    assert first.id == previous.id and verify(first) == []
    assert second.status == "incomplete"
    assert second.reason == "the snapshot could not be made durable: No space left on device"
    assert sorted(path.name for path in second.path.iterdir()) == ["dump.log", "failed.json"]


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_nobody_else_may_read_a_snapshot_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = Store.create_or_open(tmp_path / "store")
        draft = store.new_draft("run-1", "timer")
        (draft.images / "deeper").mkdir(mode=0o755)
        (draft.images / "deeper").chmod(0o755)
        (draft.images / "deeper" / "page.img").touch()
        (draft.images / "deeper" / "page.img").chmod(0o644)
        draft.publish(facts())
    finally:
        os.umask(before)
    for path in [store.layout.root, *store.layout.root.rglob("*")]:
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_a_hard_link_to_somebody_elses_file_keeps_its_permissions(store: Store, tmp_path: Path) -> None:
    theirs = tmp_path / "data.bin"
    theirs.write_bytes(b"data")
    theirs.chmod(0o644)
    draft = store.new_draft("run-1", "timer")
    (draft.files / "kept").hardlink_to(theirs)
    assert draft.publish(facts()).status == "complete"
    assert mode(theirs) == 0o644


def test_sockets_and_fifos_that_served_the_dump_do_not_enter_the_snapshot(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = store.new_draft("run-1", "timer")
    fill(draft)
    os.mkfifo(draft.path / "hook")
    monkeypatch.chdir(draft.images)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("streamer.sock")
        snapshot = draft.publish(facts())
    assert snapshot.manifest is not None and set(snapshot.manifest.files) == set(FILES)
    assert not (draft.path / "hook").exists() and not (draft.images / "streamer.sock").exists()


def test_a_symbolic_link_in_the_images_fails_the_dump(store: Store, tmp_path: Path) -> None:
    draft = store.new_draft("run-1", "timer")
    (draft.images / "parent").symlink_to(tmp_path)
    with pytest.raises(DumpFailedError, match="parent is neither a file nor a directory"):
        draft.publish(facts())


def test_the_digest_of_a_blob_is_its_name_so_a_blob_gone_bad_is_found(store: Store) -> None:
    draft = store.new_draft("run-1", "timer")
    name = digest_bytes(b"the bytes it had when it was named")
    (draft.files / name).write_bytes(b"the bytes that the disk made of it")
    snapshot = draft.publish(facts())
    assert verify(snapshot) == [f"files/{name} has changed: its checksum is not the one in the manifest"]


def test_the_digest_of_a_pack_is_its_name_so_a_pack_gone_bad_is_found(store: Store) -> None:
    draft = store.new_draft("run-1", "timer")
    name = digest_bytes(b"the bytes it had when it was named")
    draft.packs.mkdir()
    (draft.packs / name).write_bytes(b"the bytes that the disk made of it")
    snapshot = draft.publish(facts())
    assert verify(snapshot) == [f"packs/{name} has changed: its checksum is not the one in the manifest"]


def test_half_packs_do_not_enter_the_snapshot(store: Store) -> None:
    draft = store.new_draft("run-1", "timer")
    fill(draft)
    (draft.packs / ".new").write_bytes(b"half")
    snapshot = draft.publish(facts())
    assert snapshot.manifest is not None and set(snapshot.manifest.files) == set(FILES)
    assert not (draft.packs / ".new").exists()
    assert verify(snapshot) == []


def test_the_log_of_a_complete_snapshot_is_compressed_and_still_read(store: Store) -> None:
    lines = "".join(f"({n / 1e6:.6f}) pie: 1700: Restoring scheduler params\n" for n in range(20_000))
    draft = store.new_draft("run-1", "timer")
    fill(draft)
    draft.dump_log.write_text(lines)
    assert read_log(draft.path) == lines
    snapshot = draft.publish(facts(), log_ended=True)
    assert not draft.dump_log.exists()
    assert (draft.path / "dump.log.zst").stat().st_size < len(lines) / 8
    assert mode(draft.path / "dump.log.zst") == 0o600
    assert (read_log(snapshot.path), verify(snapshot)) == (lines, [])
    (draft.path / "dump.log.zst").write_bytes(b"damaged")
    assert (read_log(snapshot.path), verify(snapshot)) == ("", [])


def test_a_log_that_criu_still_writes_stays_as_it_is(store: Store) -> None:
    draft = store.new_draft("run-1", "preempt")
    fill(draft)
    with draft.dump_log.open("a") as log:
        snapshot = draft.publish(facts())
        log.write("the last line\n")
    assert read_log(snapshot.path).endswith("the last line\n")


def test_a_failed_dump_keeps_its_log_plain(store: Store) -> None:
    draft = store.new_draft("run-1", "timer")
    fill(draft)
    draft._disk = FullDisk(14)
    with pytest.raises(DumpFailedError, match="No space left on device"):
        draft.publish(facts(), log_ended=True)
    draft.discard("no room")
    assert sorted(path.name for path in draft.path.iterdir()) == ["dump.log", "failed.json"]


def test_what_a_snapshot_shares_with_an_earlier_one_was_not_added_by_it(store: Store) -> None:
    first = add(store)
    draft = store.new_draft("run-1", "timer")
    fill(draft)
    (draft.path / PACK).unlink()
    (draft.path / PACK).hardlink_to(first.path / PACK)
    second = draft.publish(facts(spilled_bytes=77))
    total, shared = sum(map(len, FILES.values())), len(FILES[PACK])
    assert first.manifest is not None and second.manifest is not None
    assert (first.manifest.stored_bytes, first.manifest.added_bytes) == (total, total)
    assert (second.manifest.stored_bytes, second.manifest.added_bytes) == (total, total - shared)
    assert second.manifest.spilled_bytes == 77


def test_figures_that_criu_writes_after_the_marker_do_not_spoil_the_snapshot(store: Store) -> None:
    snapshot = add(store)
    (snapshot.path / "images" / "stats-dump").write_bytes(b"late")
    snapshot.path.joinpath("dump.log").write_text("longer than it was at the cut")
    assert verify(snapshot) == []


def test_a_draft_belongs_to_its_writer_until_it_is_published_or_discarded(store: Store) -> None:
    published, discarded = store.new_draft("run-1", "timer"), store.new_draft("run-1", "timer")
    assert [one.reason for one in store.snapshots()] == ["it is being written now"] * 2
    assert is_live(published.path) and is_live(discarded.path)
    published.publish(facts())
    discarded.discard("a reason")
    assert [(one.status, one.reason) for one in store.snapshots()] == [("complete", None), ("incomplete", "a reason")]
    assert not is_live(published.path) and not is_live(discarded.path)
    assert not (published.path / ".owner").exists()


def test_a_file_that_can_not_be_read_back_is_told_as_a_failed_dump(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = store.new_draft("run-1", "timer")
    fill(draft)

    def broken(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("criu_train.store.draft.digest_file", broken)
    with pytest.raises(DumpFailedError, match="Input/output error"):
        draft.publish(facts())
    assert store.snapshots()[0].status == "incomplete"


class _GivingUp(Disk):
    """Gives the draft up at a point, as a supervisor does that waits for the publishing thread no longer."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.draft: Draft | None = None

    def reached(self, point: str) -> None:
        if point == self.point and self.draft is not None:
            self.draft.discard("the grace was over")


@pytest.mark.parametrize(("point", "status"), [("before-marker", "incomplete"), ("after-marker", "complete")])
def test_a_draft_given_up_in_the_middle_of_its_publish_is_whole_or_not_complete(
    tmp_path: Path, point: str, status: str
) -> None:
    disk = _GivingUp(point)
    store = Store.create_or_open(tmp_path / "store", disk)
    disk.draft = draft = store.new_draft("run-1", "preempt")
    fill(draft)
    with contextlib.suppress(DumpFailedError):
        draft.publish(facts())
    (snapshot,) = store.snapshots()
    assert snapshot.status == status
    assert status == "incomplete" or verify(snapshot) == []
