"""Out of a store and in again: what CRIU's tools get is what was captured, and nothing damaged comes back."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from store_samples import BLOB, LARGE, SMALL, add, facts, fill, mode, take

from criu_train.archive import exporting
from criu_train.archive.checkpointctl import with_old_counts
from criu_train.archive.exporting import export_snapshot
from criu_train.archive.importing import check_export, import_snapshot
from criu_train.criu.find import find_criu
from criu_train.criu.schema import image_schema
from criu_train.errors import StoreError, UsageError
from criu_train.store.digest import digest_bytes
from criu_train.store.integrity import verify
from criu_train.store.snapshot import Snapshot, read_snapshot
from criu_train.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    return take(store, tmp_path / "plain")


def take_in(directory: Path, store: Store) -> Snapshot:
    return import_snapshot(check_export(directory), store)


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def images(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.img")}


def test_an_export_holds_every_image_as_plain_criu_writes_it(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    there = tmp_path / "there"
    told: list[tuple[int, int]] = []
    export_snapshot(snapshot, there, store=store.id, progress=lambda done, total: told.append((done, total)))
    assert images(there) == LARGE | SMALL
    assert (there / "stats-dump").read_bytes() == b"figures"
    assert (there / "criu-train" / "files" / digest_bytes(BLOB)).read_bytes() == BLOB
    assert told[-1][0] == told[-1][1] and told == sorted(told)
    for path in [there, *there.rglob("*")]:
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_imported_again_is_a_new_snapshot_of_the_same_run(
    store: Store, snapshot: Snapshot, tmp_path: Path
) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    again = take_in(tmp_path / "there", store)
    assert (again.status, verify(again), again.sequence) == ("complete", [], 2)
    assert again.manifest is not None and snapshot.manifest is not None
    for fact in ("run", "trigger", "command", "step", "journal", "journal_offset", "cpu", "external", "stats"):
        assert getattr(again.manifest, fact) == getattr(snapshot.manifest, fact), fact
    assert again.manifest.added_bytes is not None
    assert again.manifest.added_bytes < 4096 < snapshot.manifest.stored_bytes  # the packs are shared
    export_snapshot(again, tmp_path / "twice", store=store.id)
    assert images(tmp_path / "twice") == images(tmp_path / "there")


def test_a_store_without_a_run_takes_the_run_over_and_others_keep_theirs(
    snapshot: Snapshot, store: Store, tmp_path: Path
) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    empty = Store.create_or_open(tmp_path / "empty")
    take_in(tmp_path / "there", empty)
    assert empty.run is not None
    assert (empty.run.id, empty.run.command, empty.run.cwd) == ("run-1", ("python", "train.py"), "/home/me/job")
    assert empty.run.finished_at is None
    busy = Store.create_or_open(tmp_path / "busy")
    run = busy.begin_run(("mine",), "/")
    mine = add(busy, run=run.id)
    take_in(tmp_path / "there", busy)
    assert (busy.run, busy.find("latest").id) == (run, mine.id)


def test_another_store_takes_it_in_without_its_journals(snapshot: Snapshot, store: Store, tmp_path: Path) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    other = Store.create_or_open(tmp_path / "other")
    other.next_journal().touch()  # of another training
    again = take_in(tmp_path / "there", other)
    assert again.manifest is not None
    assert (again.manifest.journal, again.manifest.journal_offset) == ("000002.jsonl", 0)
    assert verify(again) == []


def test_a_snapshot_of_version_1_goes_out_and_comes_in_packed(store: Store, tmp_path: Path) -> None:
    draft = store.new_draft("run-1", "timer")
    fill(draft, {f"images/{name}": data for name, data in (LARGE | SMALL).items()} | {"listing.json": b"{}"})
    manifest = draft.publish(facts()).path / "manifest.json"
    old = json.dumps(json.loads(manifest.read_bytes()) | {"version": 1}).encode()
    manifest.write_bytes(old)
    manifest.with_name("COMPLETE").write_text(digest_bytes(old) + "\n")
    export_snapshot(read_snapshot(draft.path), tmp_path / "there", store=store.id)
    again = take_in(tmp_path / "there", store)
    assert again.manifest is not None and again.manifest.packed
    assert not (again.images / "pages-1.img").exists()
    export_snapshot(again, tmp_path / "twice", store=store.id)
    assert images(tmp_path / "twice") == LARGE | SMALL


def test_the_archive_has_what_checkpointctl_looks_for(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id, archive=True)
    path = tmp_path / "there" / "criu-train" / "checkpoint.tar"
    assert mode(path) == 0o600
    with tarfile.open(path) as archive:
        names = archive.getnames()
        assert archive.getmember("checkpoint").isdir()
        assert {name.removeprefix("checkpoint/") for name in names if name.startswith("checkpoint/")} == {
            *LARGE,
            *SMALL,
        }
        member = archive.extractfile("checkpoint/pages-1.img")
        assert member is not None and member.read() == LARGE["pages-1.img"]
        config = archive.extractfile("config.dump")
        assert config is not None and json.load(config)["id"] == snapshot.id
        assert {"spec.dump", "stats-dump"} <= set(names)
    assert take_in(tmp_path / "there", store).status == "complete"


def test_only_a_new_or_an_empty_directory_is_filled(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export_snapshot(snapshot, tmp_path / "empty", store=store.id)
    before = content(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    for taken in ("empty", "file"):
        with pytest.raises(UsageError, match="is not an empty directory"):
            export_snapshot(snapshot, tmp_path / taken, store=store.id)
    assert content(tmp_path / "empty") == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("where", ["packs", "images/core-1000.img", "pages.index", "files"])
def test_a_damaged_snapshot_is_not_exported_and_nothing_half_written_is_left(
    store: Store, snapshot: Snapshot, tmp_path: Path, where: str
) -> None:
    path = snapshot.path / where
    path = next(path.iterdir()) if path.is_dir() else path
    flip(path)
    for there in (tmp_path / "there", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(StoreError):
            export_snapshot(snapshot, there, store=store.id)
    assert not (tmp_path / "there").exists()
    assert list((tmp_path / "empty").iterdir()) == []


def test_without_room_nothing_is_written(
    store: Store, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr(exporting.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match=r"not enough room at .*/there: .* needed, 97\.7 KiB free"):
        export_snapshot(snapshot, tmp_path / "there", store=store.id)
    assert not (tmp_path / "there").exists()


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(
    store: Store, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "fsync_tree", full)
    with pytest.raises(StoreError, match="can't be filled: No space left on device"):
        export_snapshot(snapshot, tmp_path / "there", store=store.id)
    assert not (tmp_path / "there").exists()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_draft_is_not_exported(store: Store, tmp_path: Path) -> None:
    store.new_draft("run-1", "timer").discard("CRIU failed")
    with pytest.raises(StoreError, match="can't be exported: incomplete: CRIU failed"):
        export_snapshot(store.snapshots()[0], tmp_path / "there", store=store.id)


def test_the_archive_tells_counts_of_pages_where_checkpointctl_looks_for_them() -> None:
    def image(*entries: bytes) -> bytes:
        return b"MAGICNOS" + b"".join(len(entry).to_bytes(4, "little") + entry for entry in entries)

    head = b"\x08\x05"  # field 1 (pages_id) is 5
    vaddr, flags = b"\x08\x80\x80\x80\x80\x80\x02", b"\x20\x04"
    new = vaddr + b"\x10\x00" + flags + b"\x28\xac\x02"  # field 2 (the old count) is 0, field 5 is 300
    old = vaddr + b"\x10\x07" + flags
    assert with_old_counts(image(head, new, old)) == image(head, new + b"\x10\xac\x02", old)
    assert with_old_counts(image(head)) == image(head)


@pytest.mark.criu
def test_a_real_pagemap_reads_the_same_with_both_counts() -> None:
    schema = image_schema(find_criu().pycriu)
    entries = [{"pages_id": 5}] + [
        {"vaddr": number << 40, "compat_nr_pages": 0, "flags": 4, "nr_pages": number}
        for number in (1, 127, 128, 70_000)
    ]
    data = schema.dumps({"magic": "PAGEMAP", "entries": entries})
    told = schema.loads(with_old_counts(data))["entries"]
    assert [entry.pop("compat_nr_pages", None) for entry in told] == [None, 1, 127, 128, 70_000]
    assert [entry.get("nr_pages") for entry in told] == [None, 1, 127, 128, 70_000]
