"""Whatever is wrong with a snapshot is told, and nothing that is wrong raises."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import FILES, PACK, add

from criu_train.store.digest import digest_bytes, digest_file
from criu_train.store.integrity import verify
from criu_train.store.manifest import Manifest
from criu_train.store.snapshot import Snapshot, read_snapshot
from criu_train.store.store import Store


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return add(Store.create_or_open(tmp_path / "store"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0, -1])
def test_one_flipped_bit_in_any_file_is_found(snapshot: Snapshot, name: str, where: int) -> None:
    data = bytearray(FILES[name])
    data[where] ^= 1
    (snapshot.path / name).write_bytes(data)
    assert read_snapshot(snapshot.path).status == "complete"  # only reading finds it
    assert verify(snapshot) == [f"{name} has changed: its checksum is not the one in the manifest"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_length_is_found_without_reading(snapshot: Snapshot, name: str) -> None:
    for data in (FILES[name][:-1], FILES[name] + b"x", b""):
        (snapshot.path / name).write_bytes(data)
        now = read_snapshot(snapshot.path)
        problem = f"{name} has {len(data)} bytes instead of {len(FILES[name])}"
        assert (now.status, now.reason) == ("corrupt", problem)
        assert verify(snapshot) == [problem]


def test_packs_are_left_to_a_restore_that_reads_them_anyway_but_not_their_sizes(snapshot: Snapshot) -> None:
    path, data = snapshot.path / PACK, bytearray(FILES[PACK])
    data[5] ^= 1
    path.write_bytes(data)
    told: list[tuple[int, int]] = []
    assert verify(snapshot, lambda done, total: told.append((done, total)), packs=False) == []
    assert told[-1] == (sum(map(len, FILES.values())) - len(data),) * 2
    assert len(verify(snapshot)) == 1
    path.write_bytes(data[:-1])
    assert verify(snapshot, packs=False) == [f"{PACK} has {len(data) - 1} bytes instead of {len(data)}"]


def test_bytes_are_not_read_when_a_size_is_wrong(snapshot: Snapshot) -> None:
    os.truncate(snapshot.path / PACK, 4096)
    read: list[int] = []
    assert len(verify(snapshot, lambda done, total: read.append(done))) == 1
    assert read == []


def _link(path: Path) -> None:
    twin = path.with_name("twin")
    path.rename(twin)
    path.symlink_to(twin)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "told"),
    [(Path.unlink, "is missing"), (_directory, "is no regular file"), (_link, "is no regular file")],
)
def test_a_file_that_is_missing_or_something_else_is_found(
    snapshot: Snapshot, damage: Callable[[Path], None], told: str
) -> None:
    damage(snapshot.path / PACK)
    assert read_snapshot(snapshot.path).reason == f"{PACK} {told}"
    assert f"{PACK} {told}" in verify(snapshot)


def test_a_missing_images_directory_is_found(snapshot: Snapshot) -> None:
    shutil.rmtree(snapshot.images)
    assert read_snapshot(snapshot.path).status == "corrupt"
    assert verify(snapshot) == [f"{name} is missing" for name in sorted(FILES) if name.startswith("images")]


def test_files_that_do_not_belong_there_are_found(snapshot: Snapshot) -> None:
    (snapshot.images / "pages-2.img").write_bytes(b"planted")
    (snapshot.images / "parent").symlink_to("/")
    (snapshot.path / "notes.txt").touch()
    assert verify(snapshot) == [
        "images/pages-2.img does not belong to the snapshot",
        "images/parent does not belong to the snapshot",
        "notes.txt does not belong to the snapshot",
    ]


def test_a_missing_marker_makes_a_snapshot_incomplete(snapshot: Snapshot) -> None:
    (snapshot.path / "COMPLETE").unlink()
    now = read_snapshot(snapshot.path)
    assert (now.status, now.reason, now.manifest) == ("incomplete", "its dump was cut off", None)
    assert verify(snapshot) == ["its dump was cut off"]


@pytest.mark.parametrize("marker", [b"", b"\0" * 64, b"yes\n", b"\xff"])
def test_a_marker_that_does_not_fit_the_manifest_is_found(snapshot: Snapshot, marker: bytes) -> None:
    (snapshot.path / "COMPLETE").write_bytes(marker)
    assert verify(snapshot) == ["manifest.json does not match COMPLETE"]


def test_a_missing_manifest_is_found(snapshot: Snapshot) -> None:
    (snapshot.path / "manifest.json").unlink()
    assert read_snapshot(snapshot.path).status == "corrupt"
    assert verify(snapshot) == ["manifest.json is missing"]


GARBAGE = [
    b"", b"\0" * 100, b"{", b"[]", b"null", b"3", b"{}", b'{"version": 1}', b'{"version": 1, "cpu": 3}', b"\xff\xfe",
    b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("vouched", [False, True])
def test_a_manifest_of_garbage_is_found_even_if_the_marker_fits_it(
    snapshot: Snapshot, garbage: bytes, vouched: bool
) -> None:
    (snapshot.path / "manifest.json").write_bytes(garbage)
    if vouched:
        (snapshot.path / "COMPLETE").write_text(digest_bytes(garbage) + "\n")
    now = read_snapshot(snapshot.path)
    assert now.status == "corrupt"
    assert now.reason is not None
    assert now.reason.startswith("the manifest can't be read" if vouched else "manifest.json does not match COMPLETE")
    assert verify(snapshot) == [now.reason]


def _rewrite(snapshot: Snapshot, **changes: object) -> None:
    data = json.dumps(json.loads((snapshot.path / "manifest.json").read_bytes()) | changes).encode()
    (snapshot.path / "manifest.json").write_bytes(data)
    (snapshot.path / "COMPLETE").write_text(digest_bytes(data) + "\n")


@pytest.mark.parametrize(
    "changes",
    [{"files": [1]}, {"files": {"a": 3}}, {"external": [["a"]]}, {"cpu": {"arch": "x"}}, {"command": 3}],
)
def test_a_manifest_with_the_wrong_shape_is_found(snapshot: Snapshot, changes: dict[str, object]) -> None:
    _rewrite(snapshot, **changes)
    assert "the manifest can't be read" in verify(snapshot)[0]


def test_facts_that_are_not_known_here_do_not_make_a_manifest_unreadable(snapshot: Snapshot) -> None:
    _rewrite(snapshot, more=1)
    assert verify(snapshot) == []


def test_a_manifest_of_a_later_version_is_told_as_such(snapshot: Snapshot) -> None:
    _rewrite(snapshot, version=3)
    assert verify(snapshot) == ["the manifest is of version 3, this criu-train reads 2"]


def test_a_copy_of_a_snapshot_under_another_name_is_found(snapshot: Snapshot) -> None:
    copy = snapshot.path.with_name("20991231T000000Z-000099")
    shutil.copytree(snapshot.path, copy)
    assert read_snapshot(copy).reason == f"it is a copy of {snapshot.id}"


def test_a_snapshot_that_vanished_is_told_and_raises_nothing(snapshot: Snapshot) -> None:
    shutil.rmtree(snapshot.path)
    assert verify(snapshot) == ["can't be read: No such file or directory"]


def test_a_disk_that_can_not_read_a_file_is_told(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, progress: object) -> str:
        if path.name == "pstree.img":
            raise OSError(5, "Input/output error")
        return digest_file(path)

    monkeypatch.setattr("criu_train.store.integrity.digest_file", read)
    assert verify(snapshot) == ["images/pstree.img can't be read: Input/output error"]


def test_progress_ends_at_the_number_of_stored_bytes(snapshot: Snapshot) -> None:
    told: list[tuple[int, int]] = []
    assert verify(snapshot, lambda done, total: told.append((done, total))) == []
    assert isinstance(snapshot.manifest, Manifest)
    assert told[-1] == (snapshot.manifest.stored_bytes,) * 2
    assert told == sorted(told)


def test_a_digest_does_not_depend_on_the_pieces_it_is_read_in(tmp_path: Path) -> None:
    for size in (0, 1, 1 << 20, (1 << 20) + 1, (3 << 20) - 1):
        data = os.urandom(size)
        (tmp_path / "file").write_bytes(data)
        assert digest_file(tmp_path / "file") == digest_bytes(data)
