"""A rollback as root, in directories of somebody who puts symlinks in its way, and what it makes durable when."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workshop import State, Taken, Workshop

from criu_train.errors import StoreError
from criu_train.workspace import rollback as rollback_module
from criu_train.workspace import stash
from criu_train.workspace.reach import StrayedError, reach
from criu_train.workspace.rollback import forget_old, recover_unfinished

NOBODY = 65534


def busy(shop: Workshop) -> Taken:
    """In ``d``, a rollback with every kind of step to do."""
    shop.start()
    shop.ours(["mkdir", "d"], ["append", "d/log", "one\n"], ["write", "d/state", "one"], ["write", "d/gone", "x"])
    shop.ours(["write", "d/script", "x"], ["mkdir", "d/sub"], ["write", "d/sub/x", "x"])
    taken = shop.take()
    shop.ours(["append", "d/log", "two\n"], ["write", "d/state", "two"], ["unlink", "d/gone"], ["rmtree", "d/sub"])
    shop.ours(["chmod", "d/script", 0o700], ["write", "d/new", "x"])
    shop.kill(at_rest=True)
    return taken


def victim(place: Path) -> Path:
    """A directory of root's with the same names in it."""
    directory = place / "victim"
    directory.mkdir()
    for name in ("log", "state", "script", "new"):
        (directory / name).write_text("one\nand what is root's")
        (directory / name).chmod(0o640)
    return directory


def look(directory: Path) -> dict[str, tuple[bytes, int, int, int]]:
    found = {path.name: (path.read_bytes(), path.stat()) for path in directory.iterdir()}
    return {name: (data, info.st_mode, info.st_uid, info.st_mtime_ns) for name, (data, info) in found.items()}


def when_planned(monkeypatch: pytest.MonkeyPatch, doing: Callable[[], object]) -> None:
    """Have it done between the planning of the next rollback and its first step."""
    record = rollback_module._record

    def then(*arguments: Any, **options: Any) -> None:
        record(*arguments, **options)
        doing()

    monkeypatch.setattr(rollback_module, "_record", then)


def link_of_a_user(link: Path, target: Path) -> None:
    link.symlink_to(target)
    os.lchown(link, NOBODY, NOBODY)


def test_a_directory_that_became_a_users_symlink_does_not_lead_a_rollback_outside(
    shop: Workshop, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, outside = busy(shop), victim(place)
    before = look(outside)

    def attack() -> None:
        shop.path("d").rename(shop.path("away"))
        link_of_a_user(shop.path("d"), outside)

    when_planned(monkeypatch, attack)
    rollback = shop.roll_back(taken)
    assert look(outside) == before
    told = {warning.rsplit("/", 1)[1] for warning in rollback.warnings}
    assert told == {"new", "gone", "sub", "x", "log", "state", "script"}
    rollback.commit()
    rollback.undo()
    assert look(outside) == before


def test_undoing_is_not_led_outside_either(shop: Workshop, place: Path) -> None:
    taken, outside = busy(shop), victim(place)
    before = look(outside)
    rollback = shop.roll_back(taken)
    shop.path("d").rename(shop.path("away"))
    link_of_a_user(shop.path("d"), outside)
    rollback.undo()
    assert look(outside) == before


def test_a_file_that_became_a_symlink_or_another_file_is_left_alone(
    shop: Workshop, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, outside = busy(shop), victim(place)
    before = look(outside)

    def attack() -> None:
        for name in ("log", "script"):
            shop.path(f"d/{name}").unlink()
        link_of_a_user(shop.path("d/script"), outside / "script")
        (outside / "log").rename(outside / "kept")
        (shop.path("d/log")).hardlink_to(outside / "kept")

    when_planned(monkeypatch, attack)
    rollback = shop.roll_back(taken)
    assert sorted(warning.rsplit("/", 1)[1] for warning in rollback.warnings) == ["log", "script"]
    assert {name: what for name, what in look(outside).items() if name != "kept"} == {
        name: what for name, what in before.items() if name != "log"
    }
    assert look(outside)["kept"] == before["log"]


def test_a_users_symlink_where_a_directory_was_at_the_cut_is_moved_away_and_the_directory_made_anew(
    shop: Workshop, place: Path
) -> None:
    scratch = Path(f"/tmp/criu-train-test-{os.getpid()}")
    outside = place / "outside"
    outside.mkdir()
    scratch.mkdir()
    try:
        shop.start()
        shop.ours(["hold", str(scratch / "log"), "one\n"])
        taken = shop.take()
        shop.kill(at_rest=True)
        shutil.rmtree(scratch)
        link_of_a_user(scratch, outside)
        shop.roll_back(taken)
        assert list(outside.iterdir()) == []
        assert not scratch.is_symlink() and (scratch / "log").read_text() == "one\n"
    finally:
        if scratch.is_symlink():
            scratch.unlink()
        shutil.rmtree(scratch, ignore_errors=True)


def test_only_symlinks_that_nobody_but_root_can_change_are_followed(place: Path) -> None:
    (place / "real").mkdir()
    (place / "relative").symlink_to("real")
    (place / "absolute").symlink_to(place / "real")
    link_of_a_user(place / "users", place / "real")
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    (place / "open" / "link").symlink_to(place / "real")
    (place / "real" / "x").write_text("x")
    for name in ("relative", "absolute", "relative/../absolute"):
        with reach(f"{place}/{name}/x") as path:
            assert Path(path).read_text() == "x"
    for name in ("users", "open/link"):
        with pytest.raises(StrayedError), reach(f"{place}/{name}/x"):
            pass
    with pytest.raises(FileNotFoundError), reach(f"{place}/nothing/x"):
        pass
    with pytest.raises(NotADirectoryError), reach(f"{place}/real/x/y"):
        pass


def test_what_was_reached_stays_the_same_directory_whatever_its_name_becomes(place: Path) -> None:
    (place / "d").mkdir()
    with reach(f"{place}/d/x") as path:
        (place / "d").rename(place / "e")
        (place / "d").mkdir()
        Path(path).write_text("x")
    assert (place / "e" / "x").exists() and not (place / "d" / "x").exists()


def test_a_copy_across_filesystems_keeps_bytes_and_is_durable_before_the_original_goes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, source = place / "kept", Path(f"/dev/shm/criu-train-test-{os.getpid()}")
    source.mkdir()
    (source / "x").write_text("x")
    synced, at_removal = watch_syncs(monkeypatch), []
    remove = stash.remove
    monkeypatch.setattr(stash, "remove", lambda path: (at_removal.append((path, set(synced))), remove(path)))
    try:
        stash.move(str(source), str(kept))
    finally:
        shutil.rmtree(source, ignore_errors=True)
    (before,) = [inodes for path, inodes in at_removal if path == str(source)]
    assert {(kept / "x").stat().st_ino, kept.stat().st_ino, place.stat().st_ino} <= before


def watch_syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that are fsynced from now on, in order; -1 for a file that is cut or replaced."""
    done: list[int] = []
    fsync, ftruncate = os.fsync, os.ftruncate

    def syncing(fd: int) -> None:
        fsync(fd)
        done.append(os.fstat(fd).st_ino)

    def cutting(fd: int, size: int) -> None:
        done.append(-1)
        ftruncate(fd, size)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "ftruncate", cutting)
    return done


def test_what_a_rollback_destroys_is_durable_before_it_is_destroyed_and_what_it_puts_back_before_it_is_done(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = busy(shop)
    old_state = shop.path("d/state").stat().st_ino
    synced = watch_syncs(monkeypatch)
    rollback = shop.roll_back(taken)
    files = next((shop.store / "rollback").iterdir()) / "files"
    before = set(synced[: synced.index(-1)])
    tail = next(path for path in files.iterdir() if path.is_file() and path.read_bytes() == b"two\n")
    assert {tail.stat().st_ino, old_state, files.stat().st_ino} <= before
    synced.clear()
    rollback.commit()
    done = synced.index((files.parent / "DONE").stat().st_ino)
    put_back = {shop.path(f"d/{name}").stat().st_ino for name in ("log", "state", "gone", "script", "sub", "sub/x")}
    assert put_back | {shop.path("d").stat().st_ino, files.stat().st_ino} <= set(synced[:done])


def test_a_rollback_that_broke_off_is_not_undone_when_a_later_one_was_restored_and_ran(shop: Workshop) -> None:
    taken = busy(shop)
    shop.roll_back(taken)  # neither committed nor undone
    shop.start(taken.listing)
    shop.kill(at_rest=True)
    before: State = shop.state()
    shop.start(taken.listing)
    shop.ours(["append", "d/log", "three\n"])
    shop.kill(at_rest=True)
    before = shop.state()
    with pytest.raises(StoreError, match="000001 was neither finished nor undone") as caught:
        recover_unfinished(shop.store / "rollback")
    assert str(shop.store / "rollback" / "000001") in caught.value.tip
    assert shop.state() == before


def test_a_committed_rollback_whose_undoing_broke_off_is_undone_by_whoever_comes_next(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = busy(shop)
    before = shop.state()
    rollback = shop.roll_back(taken)
    rollback.commit()
    give_back = stash.give_back

    def broken(kept: str, path: str) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(stash, "give_back", broken)
    with pytest.raises(OSError, match="broken"):
        rollback.undo()
    monkeypatch.setattr(stash, "give_back", give_back)
    assert shop.state() != before
    assert [path.name for path in recover_unfinished(shop.store / "rollback")] == ["000001"]
    assert shop.state() == before


def test_old_rollbacks_that_are_over_are_forgotten_but_the_newest_and_those_that_broke_off(shop: Workshop) -> None:
    taken = busy(shop)
    root = shop.store / "rollback"
    for _ in range(2):
        shop.roll_back(taken).undo()
    shop.roll_back(taken)
    broken_off = root / "000003"
    shop.rolled = 3
    for directory in root.iterdir():
        os.utime(directory, (time.time() - 1000,) * 2)
    assert forget_old(root, older_than_s=2000, keep=0) == []
    assert forget_old(root, older_than_s=500, keep=2) == [root / "000001"]
    assert forget_old(root, older_than_s=500, keep=0) == [root / "000002"]
    assert list(root.iterdir()) == [broken_off]
    assert forget_old(root / "nothing", older_than_s=0, keep=0) == []
    assert recover_unfinished(root) == [broken_off]


def test_a_forgetting_that_broke_off_is_not_taken_for_a_rollback_to_undo(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = busy(shop)
    root = shop.store / "rollback"
    shop.roll_back(taken).commit()
    before = shop.state()

    def broken(path: Path) -> None:
        (path / "DONE").unlink()
        raise OSError(5, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", broken)
        with pytest.raises(OSError, match="broken"):
            forget_old(root, older_than_s=-1, keep=0)
    assert recover_unfinished(root) == []
    assert shop.state() == before
    assert forget_old(root, older_than_s=-1, keep=0) == [root / "000001"]
