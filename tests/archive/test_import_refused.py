"""What is not as it was exported, or was never exported, is not taken in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_samples import SMALL, mode, take

from criu_train.archive.exporting import export_snapshot
from criu_train.archive.importing import check_export, import_snapshot
from criu_train.errors import StoreError
from criu_train.store.digest import digest_bytes
from criu_train.store.snapshot import Snapshot
from criu_train.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    return take(store, tmp_path / "plain")


def take_in(directory: Path, store: Store) -> Snapshot:
    return import_snapshot(check_export(directory), store)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def seal(ours: Path, told: Any) -> None:
    """``export.json`` as somebody could write it by hand, with the digest that belongs to it."""
    data = json.dumps(told).encode()
    (ours / "export.json").write_bytes(data)
    (ours / "COMPLETE").write_text(digest_bytes(data) + "\n")


def test_one_flipped_byte_in_any_file_that_counts_is_refused(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    there = tmp_path / "there"
    export_snapshot(snapshot, there, store=store.id)
    told_only = {"stats-dump", "dump.log.zst", "config.dump", "spec.dump"}
    counting = [path for path in there.rglob("*") if path.is_file() and path.name not in told_only]
    counting = [path for path in counting if path.stat().st_size]
    assert len(counting) == 3 + len(SMALL) + 5
    for path in counting:
        flip(path)
        with pytest.raises(StoreError):
            take_in(there, store)
        flip(path)
    assert len(store.snapshots()) == 1
    assert take_in(there, store).status == "complete"


def _link(path: Path) -> None:
    path.rename(path.with_name("twin"))
    path.symlink_to("twin")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 4096), _link])
def test_what_is_missing_cut_or_a_link_is_refused(
    store: Store, snapshot: Snapshot, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    damage(tmp_path / "there" / "pages-1.img")
    with pytest.raises(StoreError, match=r"the exported snapshot is damaged: pages-1\.img"):
        take_in(tmp_path / "there", store)
    assert [one.id for one in store.snapshots()] == [snapshot.id]


def test_foreign_directories_are_refused(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for foreign in (tmp_path / "empty", snapshot.path, snapshot.images):
        with pytest.raises(StoreError, match="holds no exported snapshot"):
            take_in(foreign, store)
    with pytest.raises(StoreError, match="can't be read: No such file"):
        take_in(tmp_path / "nowhere", store)


def test_a_directory_that_others_can_write_to_is_refused(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    for where in (".", "criu-train", "criu-train/files", "pages-1.img", "criu-train/export.json"):
        path = tmp_path / "there" / where
        before = mode(path)
        path.chmod(0o777)
        with pytest.raises(StoreError, match=f"{path} can be written to by other users") as caught:
            take_in(tmp_path / "there", store)
        assert caught.value.tip.endswith(f"chmod -R go-w {tmp_path / 'there'}, then again")
        path.chmod(before)
        os.chown(path, 4242, 4242)
        with pytest.raises(StoreError, match=f"{path} belongs to user id 4242"):
            take_in(tmp_path / "there", store)
        os.chown(path, os.geteuid(), os.getegid())
    assert take_in(tmp_path / "there", store).status == "complete"


def test_names_that_lead_out_of_the_directory_are_refused(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    (tmp_path / "secret").write_bytes(b"secret")
    ours = tmp_path / "there" / "criu-train"
    told = json.loads((ours / "export.json").read_bytes())
    told["images"]["../secret"] = [6, digest_bytes(b"secret")]
    seal(ours, told)
    with pytest.raises(StoreError, match="leads elsewhere"):
        take_in(tmp_path / "there", store)


@pytest.mark.parametrize("where", ["more", "criu-train/more", "criu-train/files/more"])
@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc"), os.mkfifo])
def test_links_and_special_files_are_refused_anywhere(
    store: Store, snapshot: Snapshot, tmp_path: Path, where: str, make: Callable[[Path], None]
) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    make(tmp_path / "there" / where)
    with pytest.raises(StoreError, match=f"{where} is (a symbolic link|neither a file nor a directory)"):
        take_in(tmp_path / "there", store)


@pytest.mark.parametrize(
    "told",
    [
        lambda told: [],
        lambda told: None,
        lambda told: {},
        lambda told: told | {"unknown": 1},
        lambda told: told | {"images": []},
        lambda told: told | {"images": {"core.img": 5}},
        lambda told: told | {"images": {"core.img": ["5", 7]}},
        lambda told: told | {"store": 5},
        lambda told: told | {"manifest": None},
        lambda told: told | {"version": "1"},
        lambda told: told | {"images": told["images"] | {"zero\0.img": [0, "00"]}},
    ],
)
def test_facts_written_by_hand_are_refused_in_a_line(
    store: Store, snapshot: Snapshot, tmp_path: Path, told: Callable[[Any], Any]
) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    ours = tmp_path / "there" / "criu-train"
    seal(ours, told(json.loads((ours / "export.json").read_bytes())))
    with pytest.raises(StoreError, match="the export"):
        take_in(tmp_path / "there", store)


@pytest.mark.parametrize(
    "changes",
    [{"run": 5}, {"command": [5]}, {"stats": {"a": "b"}}, {"step": "7"}, {"cpu": {}}, {"external": [1]},
     {"tasks": True}, {"files": {"listing.json": ["2", "00"]}}, {"metrics": []}, {"notes": 5}],
)  # fmt: skip
def test_a_manifest_written_by_hand_is_refused_in_a_line(
    store: Store, snapshot: Snapshot, tmp_path: Path, changes: dict[str, Any]
) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    ours = tmp_path / "there" / "criu-train"
    data = json.dumps(json.loads((ours / "manifest.json").read_bytes()) | changes).encode()
    (ours / "manifest.json").write_bytes(data)
    seal(ours, json.loads((ours / "export.json").read_bytes()) | {"manifest": digest_bytes(data)})
    with pytest.raises(StoreError, match=r"the (exported snapshot is damaged: .*manifest|manifest can't be read)"):
        take_in(tmp_path / "there", store)


@pytest.mark.parametrize("listing", [b"", b"[]", b"null", b'{"entries": 5}', b'{"entries": [1]}', b'{"remaps": ["a"]}'])
def test_a_listing_written_by_hand_is_refused_in_a_line(
    store: Store, snapshot: Snapshot, tmp_path: Path, listing: bytes
) -> None:
    export_snapshot(snapshot, tmp_path / "there", store=store.id)
    ours = tmp_path / "there" / "criu-train"
    (ours / "listing.json").write_bytes(listing)
    manifest = json.loads((ours / "manifest.json").read_bytes())
    manifest["files"]["listing.json"] = [len(listing), digest_bytes(listing)]
    data = json.dumps(manifest).encode()
    (ours / "manifest.json").write_bytes(data)
    seal(ours, json.loads((ours / "export.json").read_bytes()) | {"manifest": digest_bytes(data)})
    with pytest.raises(StoreError, match=r"the exported snapshot is damaged: criu-train/listing\.json can't be read"):
        take_in(tmp_path / "there", store)
