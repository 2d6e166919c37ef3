"""Writes that survive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from store_samples import mode

from criu_train.store.durable import Disk, fsync_dir, fsync_tree, open_private, write_atomic


class Recorder(Disk):
    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def fsync(self, path: Path) -> None:
        super().fsync(path)
        self.done.append(("fsync", path.name))

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.done.append(("rename", old.name, new.name))


def test_a_file_is_synced_before_it_gets_its_name_and_the_name_after(tmp_path: Path) -> None:
    disk = Recorder()
    write_atomic(tmp_path / "a.json", b"data", disk=disk)
    assert disk.done == [("fsync", ".a.json.tmp"), ("rename", ".a.json.tmp", "a.json"), ("fsync", tmp_path.name)]
    assert (tmp_path / "a.json").read_bytes() == b"data"
    assert mode(tmp_path / "a.json") == 0o600


def test_a_write_that_fails_leaves_the_old_bytes(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.json", b"old")

    class Broken(Disk):
        def fsync(self, path: Path) -> None:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(tmp_path / "a.json", b"new", disk=Broken())
    assert (tmp_path / "a.json").read_bytes() == b"old"
    write_atomic(tmp_path / "a.json", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        write_atomic(tmp_path / "hook", b"", mode=0o755)
    finally:
        os.umask(before)
    assert mode(tmp_path / "hook") == 0o755


def test_a_device_keeps_its_mode() -> None:
    before = os.stat("/dev/null").st_mode
    os.close(open_private(Path("/dev/null"), os.O_RDWR))
    assert os.stat("/dev/null").st_mode == before


def test_a_temporary_name_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"precious")
    (tmp_path / ".a.tmp").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError):
        write_atomic(tmp_path / "a", b"data")
    assert (tmp_path / "theirs").read_bytes() == b"precious"


def test_a_tree_is_synced_with_every_file_before_the_directories_from_below(tmp_path: Path) -> None:
    (tmp_path / "top" / "inner").mkdir(parents=True)
    for name in ("a", "inner/b", "inner/c"):
        (tmp_path / "top" / name).touch()
    (tmp_path / "top" / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "top" / "fifo")
    disk = Recorder()
    fsync_tree(tmp_path / "top", disk=disk)
    names = [name for _, name in disk.done]
    assert (sorted(names[:3]), names[3:]) == (["a", "b", "c"], ["inner", "top"])
    fsync_dir(tmp_path, disk=disk)
    assert disk.done[-1] == ("fsync", tmp_path.name)


def test_a_sync_that_fails_anywhere_in_a_tree_is_told(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).touch()

    class Broken(Disk):
        def fsync(self, path: Path) -> None:
            if path.name == "13":
                raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        fsync_tree(tmp_path, disk=Broken())
    with pytest.raises(FileNotFoundError):
        fsync_tree(tmp_path / "nowhere")
