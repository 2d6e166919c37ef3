"""Manifests: what an older criu-train wrote is read, and a listing reads no more than the beginning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from store_samples import add

from criu_train.errors import StoreError
from criu_train.store.digest import digest_bytes
from criu_train.store.integrity import verify
from criu_train.store.manifest import Cpu, ExternalFile, Manifest, StoredFile, Summary
from criu_train.store.snapshot import list_snapshot, read_snapshot
from criu_train.store.store import Store

# As version 1 wrote it.
OLD_ID = "20261122T025325Z-000001"
OLD = (
    b'{"command":["python","train.py"],"cwd":"/home/me/job","criu_version":"4.2.1","kernel":"6.18.0",'
    b'"boot_id":"11111111-2222-3333-4444-555555555555","cpu":{"arch":"x86_64","model":"A Processor",'
    b'"flags":["avx2","fpu","sse2"]},"tasks":3,"root_pid":1700,"ns_last_pid":1712,"memory_bytes":3221225472,'
    b'"frozen_time_us":912345,"stats":{"pages_written":786432},"step":7,"metrics":{"loss":0.5},'
    b'"journal":"000001.jsonl","journal_offset":77,"external":[["/usr/lib/libc.so.6",1900000,123,33261,'
    b'"abababababababababababababababababababab"]],"notes":[],"id":"20261122T025325Z-000001","sequence":1,'
    b'"run":"run-1","created_at":"2026-11-22T02:53:25Z","trigger":"timer","stored_bytes":11,'
    b'"files":{"images/pages-1.img":[5,"a52d8c3a7a898badcf468493e436d420e2ab6569ab0b0b12894759aa45128400"],'
    b'"images/pstree.img":[4,"6baa6c9f461fe834a9da0ebb62e0f6fb8c11988a58cbc51b8da8040aea19bc3a"],'
    b'"listing.json":[2,"6e46dd10defc9b56c29a6ec56b508c21f54c08192194e4df25bf36f0c9c3c279"]},"version":1}\n'
)
OLD_FILES = {"images/pages-1.img": b"pages", "images/pstree.img": b"tree", "listing.json": b"{}"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


@pytest.fixture
def old(store: Store) -> Path:
    path = store.layout.snapshots / OLD_ID
    for name in ("images", "files"):
        (path / name).mkdir(mode=0o700, parents=True)
    path.chmod(0o700)
    for name, data in OLD_FILES.items() | {("dump.log", b"log")}:
        (path / name).write_bytes(data)
    (path / "manifest.json").write_bytes(OLD)
    (path / "COMPLETE").write_text(digest_bytes(OLD) + "\n")
    return path


def test_a_snapshot_of_version_1_is_read_listed_and_verified(store: Store, old: Path) -> None:
    one = read_snapshot(old)
    assert (one.status, one.reason, verify(one)) == ("complete", None, [])
    manifest = one.manifest
    assert manifest is not None
    assert (manifest.version, manifest.packed) == (1, False)
    assert (manifest.added_bytes, manifest.spilled_bytes) == (None, None)
    assert manifest.cpu == Cpu("x86_64", "A Processor", ("avx2", "fpu", "sse2"))
    assert manifest.external == (ExternalFile("/usr/lib/libc.so.6", 1_900_000, 123, 0o100755, "ab" * 20),)
    assert manifest.files["images/pages-1.img"] == StoredFile(5, digest_bytes(b"pages"))
    assert (manifest.step, manifest.metrics, manifest.command) == (7, {"loss": 0.5}, ("python", "train.py"))
    listed = list_snapshot(old)
    assert (listed.status, listed.manifest and listed.manifest.step) == ("complete", 7)
    assert store.added_by_newest() == 11
    assert add(store).sequence == 2


def test_damage_to_a_snapshot_of_version_1_is_found(old: Path) -> None:
    (old / "images" / "pages-1.img").write_bytes(b"pageS")
    assert verify(read_snapshot(old)) == ["images/pages-1.img has changed: its checksum is not the one in the manifest"]


def test_the_manifest_is_one_json_object_that_tells_everything(store: Store) -> None:
    one = add(store, step=3, notes=('a note with ,\n"cpu": in it',))
    data = (one.path / "manifest.json").read_bytes()
    told = json.loads(data)
    assert (told["version"], told["step"], told["id"]) == (2, 3, one.id)
    assert Manifest.from_json(data) == one.manifest
    assert one.manifest is not None and one.manifest.packed
    assert one.manifest.to_json() == data


def test_fields_of_a_later_criu_train_are_passed_over(store: Store) -> None:
    one = add(store, step=3)
    assert one.manifest is not None
    told = json.loads(one.manifest.to_json()) | {"weather": "fine", "nested": {"step": 4}}
    for data in (json.dumps(told).encode(), json.dumps({"weather": 1} | told, indent=1).encode()):
        assert Manifest.from_json(data) == one.manifest
        assert Summary.from_json(data).step == 3


def test_a_listing_tells_what_the_manifest_tells(store: Store) -> None:
    one = add(store, step=3, metrics={"loss": 0.5}, notes=('a note with ,\n"cpu": in it', "[x]"))
    listed = list_snapshot(one.path)
    assert one.manifest is not None and listed.manifest is not None
    assert type(listed.manifest) is Summary
    for name in vars(listed.manifest):
        assert getattr(listed.manifest, name) == getattr(one.manifest, name), name


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b'{"version":2}', b'{"version":2,\n"cpu":3}'])
def test_a_listing_of_garbage_is_told_as_such(garbage: bytes) -> None:
    with pytest.raises(StoreError, match="the manifest can't be read"):
        Summary.from_json(garbage)


def test_a_manifest_that_somebody_has_laid_out_anew_reads_the_same(store: Store) -> None:
    one = add(store)
    assert one.manifest is not None
    data = json.dumps(json.loads(one.manifest.to_json()), indent=1, sort_keys=True).encode()
    assert Manifest.from_json(data) == one.manifest
    assert Summary.from_json(data).id == one.id
