"""What a training does to files, killed after a cut and rolled back: exactly the cut, nothing destroyed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from workshop import Taken, Workshop

from criu_train.workspace.blobs import BlobReader
from criu_train.workspace.journal import Journals
from criu_train.workspace.rollback import Rollback, recover_unfinished, roll_back, set_aside

Ops = list[list[Any]]

BEFORE: dict[str, Ops] = {
    "a log that is appended to, opened and closed each step": [["append", "log", "one\n"], ["append", "log", "two\n"]],
    "a log that stays open": [["hold", "log", "one\n"]],
    "a log that was rotated": [["append", "log", "one\n"], ["rename", "log", "log.1"], ["append", "log", "two\n"]],
    "a state that is renamed into place": [["rewrite", "state.json", '{"step": 1}']],
    "a history that is written in full": [["write", "history.json", "[1]"]],
    "a header that is rewritten in place": [["write", "table", "step 1\nrow\n"]],
    "a memory map": [["write", "map", "\0" * 9000], ["map", "map", "first"]],
    "checkpoints of which the oldest is removed": [
        ["mkdir", "ckpt"],
        ["write", "ckpt/1", "a"],
        ["write", "ckpt/2", "b"],
    ],
    "a directory for each epoch": [["mkdir", "epoch1"], ["write", "epoch1/x", "x"]],
    "links": [["write", "best-1", "a"], ["symlink", "latest", "best-1"], ["link", "best-1", "best"]],
    "modes": [["write", "script", "#!/bin/sh"], ["chmod", "script", 0o755]],
    "a temporary file": [],
    "a removed tree": [["mkdir", "run"], ["mkdir", "run/deep"], ["write", "run/deep/x", "x"], ["fifo", "run/pipe"]],
    "a file that becomes a directory": [["write", "x", "file"], ["mkdir", "y"], ["write", "y/in", "y"]],
}
AFTER: dict[str, Ops] = {
    "a log that is appended to, opened and closed each step": [["append", "log", "three\n"]],
    "a log that stays open": [["poke", 0, "two\n"]],
    "a log that was rotated": [["rename", "log.1", "log.2"], ["rename", "log", "log.1"], ["append", "log", "three\n"]],
    "a state that is renamed into place": [["rewrite", "state.json", '{"step": 2, "more": 1}']],
    "a history that is written in full": [["write", "history.json", "[1,2]"]],
    "a header that is rewritten in place": [["patch", "table", 0, "step 2"], ["append", "table", "row\n"]],
    "a memory map": [["poke", 0, "second, and longer"]],
    "checkpoints of which the oldest is removed": [["unlink", "ckpt/1"], ["write", "ckpt/3", "c"]],
    "a directory for each epoch": [["mkdir", "epoch2"], ["mkdir", "epoch2/sub"], ["write", "epoch2/sub/x", "x"]],
    "links": [["unlink", "latest"], ["symlink", "latest", "best-2"], ["unlink", "best"], ["write", "best-1", "b"]],
    "modes": [["chmod", "script", 0o600]],
    "a temporary file": [["write", "tmp", "x"], ["unlink", "tmp"], ["write", "tmp2", "x"]],
    "a removed tree": [["rmtree", "run"]],
    "a file that becomes a directory": [
        ["unlink", "x"],
        ["mkdir", "x"],
        ["write", "x/in", "x"],
        ["rmtree", "y"],
        ["write", "y", ""],
    ],
}


@pytest.mark.parametrize("doing", BEFORE)
def test_what_trainings_do_is_rolled_back_to_the_cut_and_undone_exactly(shop: Workshop, doing: str) -> None:
    shop.start()
    shop.ours(*BEFORE[doing])
    taken = shop.take()
    shop.ours(*AFTER[doing])
    shop.kill(at_rest=True)
    before = shop.state()
    assert before != taken.state
    rollback = shop.roll_back(taken)
    assert shop.state() == taken.state
    rollback.undo()
    assert shop.state() == before


@pytest.mark.parametrize("doing", BEFORE)
def test_files_from_before_the_run_that_are_first_touched_after_the_cut_are_rolled_back(
    shop: Workshop, doing: str
) -> None:
    shop.others(*(op for op in BEFORE[doing] if op[0] not in ("hold", "map")), *[["append", "log", "one\n"]] * 2)
    shop.start()
    taken = shop.take()
    shop.ours(*(op for op in AFTER[doing] if op[0] != "poke"), ["append", "log", "three\n"])
    shop.kill(at_rest=True)
    assert shop.state() != taken.state
    shop.roll_back(taken)
    assert shop.state() == taken.state


def test_what_others_did_stays_also_inside_the_trees_directories(shop: Workshop) -> None:
    for name in ("notes", "config", "old"):
        shop.path(name).write_text("from before")
    shop.start()
    shop.ours(["mkdir", "runs"], ["write", "runs/1", "ours"], ["write", "runs/2", "ours"])
    taken = shop.take()
    shop.others(
        ["append", "notes", " and edited"],
        ["rewrite", "config", "replaced"],
        ["unlink", "old"],
        ["write", "new", "others"],
        ["write", "runs/notes", "others"],
        ["unlink", "runs/1"],
        ["mkdir", "plots"],
        ["write", "plots/1", "others"],
    )
    shop.ours(["mkdir", "runs/new"])
    shop.sync()
    shop.others(["write", "runs/new/notes", "others"])
    shop.ours(["write", "runs/new/3", "ours"])
    shop.kill(at_rest=True)
    before = shop.state()
    shop.roll_back(taken)
    after = shop.state()
    assert before.keys() - after.keys() == {"runs/new/3"}
    assert all(before[path] == what for path, what in after.items())


def test_what_others_did_while_the_job_was_dead_stays_but_the_trees_own_files_are_put_back(shop: Workshop) -> None:
    shop.path("notes").write_text("from before")
    shop.start()
    shop.ours(["mkdir", "runs"], ["append", "log", "one\n"], ["write", "runs/1", "x"])
    taken = shop.take()
    shop.ours(["append", "log", "two\n"])
    shop.kill(at_rest=True)
    time.sleep(1.1)  # a cell counts as alive for a second after its last sign of life
    shop.others(["append", "notes", " and edited"], ["write", "new", "x"], ["write", "runs/new", "x"])
    shop.others(["append", "log", "by hand\n"], ["rmtree", "runs/1"], ["unlink", "runs/1"])
    shop.roll_back(taken)
    assert shop.path("notes").read_text() == "from before and edited"
    assert shop.path("new").exists() and shop.path("runs/new").exists()
    assert shop.path("log").read_text() == "one\n"
    assert shop.path("runs/1").read_text() == "x"


def test_everything_cut_replaced_and_moved_away_is_kept(shop: Workshop) -> None:
    shop.start()
    shop.ours(["append", "log", "one\n"], ["write", "state", "one"])
    taken = shop.take()
    shop.ours(["append", "log", "the tail\n"], ["write", "state", "two"], ["mkdir", "d"], ["write", "d/new", "three"])
    shop.kill(at_rest=True)
    rollback = shop.roll_back(taken)
    rollback.commit()
    assert {b"the tail\n", b"two", b"three"} <= shop.kept()
    assert rollback.summary == "1 cut, 1 replaced, 1 moved away"
    assert recover_unfinished(shop.store / "rollback") == []


def test_a_rollback_with_nothing_to_do_leaves_files_and_rollback_directory_alone(shop: Workshop) -> None:
    shop.path("data").write_text("x")
    shop.start()
    shop.ours(["append", "log", "one\n"], ["mkdir", "d"], ["symlink", "l", "d"])
    taken = shop.take()
    shop.kill(at_rest=True)
    before = {path: os.lstat(path).st_ctime_ns for path in shop.work.rglob("*")}
    rollback = shop.roll_back(taken)
    rollback.commit()
    assert rollback.summary == "nothing to do"
    assert list((shop.store / "rollback").iterdir()) == []
    assert {path: os.lstat(path).st_ctime_ns for path in before} == before


def test_a_grown_log_is_cut_in_place_so_that_those_who_follow_it_go_on(shop: Workshop) -> None:
    shop.start()
    shop.ours(["hold", "log", "one\n"])
    taken = shop.take()
    shop.ours(["poke", 0, "two\n"])
    shop.kill(at_rest=True)
    inode = shop.path("log").stat().st_ino
    shop.roll_back(taken)
    assert shop.path("log").stat().st_ino == inode


def test_hard_links_are_one_file_again(shop: Workshop) -> None:
    shop.start()
    shop.ours(["write", "best-1", "a"], ["link", "best-1", "best"])
    taken = shop.take()
    shop.ours(["rewrite", "best", "b"], ["unlink", "best-1"])
    shop.kill(at_rest=True)
    shop.roll_back(taken)
    assert shop.path("best").samefile(shop.path("best-1"))
    assert shop.path("best").read_text() == "a"


def test_a_sqlite_database_in_wal_mode_has_the_rows_of_the_cut(shop: Workshop) -> None:
    database = str(shop.path("db"))
    shop.start()
    shop.ours(["sql", "db", "CREATE TABLE t (n)", *(f"INSERT INTO t VALUES ({n})" for n in range(5))])
    taken = shop.take()
    shop.ours(["sql", "db", *(f"INSERT INTO t VALUES ({n})" for n in range(5, 9)), "PRAGMA wal_checkpoint(TRUNCATE)"])
    shop.ours(["sql", "db", "DELETE FROM t WHERE n < 3"])
    shop.kill(at_rest=True)
    shop.roll_back(taken)
    assert {name for name in shop.state() if name.startswith("db")} == {"db", "db-wal", "db-shm"}
    assert shop.state() == taken.state
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(n,) for n in range(5)]
    connection.close()


def test_an_open_database_is_put_back_in_place_since_it_refuses_to_write_once_its_inode_is_another(
    shop: Workshop,
) -> None:
    shop.start()
    shop.ours(["sql", "db", "PRAGMA journal_mode=DELETE", "CREATE TABLE t (n)", "INSERT INTO t VALUES (1)"])
    connection = sqlite3.connect(shop.path("db"))
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    taken = shop.take()
    shop.ours(["sql", "db", "DELETE FROM t", "INSERT INTO t VALUES (9)"])
    shop.kill(at_rest=True)
    before, inode = shop.state(), shop.path("db").stat().st_ino
    rollback = shop.roll_back(taken)
    assert shop.state() == taken.state
    connection.execute("INSERT INTO t VALUES (5)")  # as a process goes on that was restored with it open
    connection.close()
    rollback.undo()
    assert shop.state() == before
    assert shop.path("db").stat().st_ino == inode


def test_a_map_written_without_a_change_of_times_is_found_changed(shop: Workshop) -> None:
    shop.path("map").write_bytes(bytes(9 << 20))
    shop.start()
    shop.ours(["map", "map", "before"])
    taken = shop.take()
    times = shop.path("map").stat()
    shop.ours(["poke", 0, "after"])
    shop.kill(at_rest=True)
    os.utime(shop.path("map"), ns=(times.st_atime_ns, times.st_mtime_ns))
    shop.roll_back(taken)
    assert shop.path("map").read_bytes() == b"before".ljust(9 << 20, b"\0")


def test_a_file_lost_by_a_power_cut_but_with_its_times_kept_is_put_back(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start()
    shop.ours(["write", "state", "whole"])
    time.sleep(0.05)
    taken = shop.take()
    shop.kill(at_rest=True)
    times = shop.path("state").stat()
    with open(shop.path("state"), "r+") as file:
        file.write("\0\0\0\0\0")
    os.utime(shop.path("state"), ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.setattr("criu_train.workspace.plan.boot_id", lambda: "another boot")
    shop.roll_back(taken)
    assert shop.path("state").read_text() == "whole"


def test_volatile_directories_and_files_that_a_reboot_emptied_are_put_back(shop: Workshop) -> None:
    volatile = Path(f"/tmp/volatile-{os.getpid()}")
    try:
        (volatile / "deep").mkdir(parents=True)
        (volatile / "deep").chmod(0o700)
        (volatile / "deep" / "kernel.so").write_bytes(b"compiled")
        shop.start()
        command = f"cd {volatile}/deep && exec 9<kernel.so && sleep 60 & echo $! > {shop.work}/pid"
        shop.ours(["shell", ".", command])
        shop.pids.append(_newest_child(shop))
        taken = shop.take()
        shop.kill(at_rest=True)
        shutil.rmtree(volatile)
        shop.roll_back(taken)
        assert (volatile / "deep" / "kernel.so").read_bytes() == b"compiled"
        assert (volatile / "deep").stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(volatile, ignore_errors=True)


def _newest_child(shop: Workshop) -> int:
    """The host's number of the process that went to the background: init's now."""
    children = Path(f"/proc/{shop.init}/task/{shop.init}/children")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        others = [int(pid) for pid in children.read_text().split() if int(pid) not in shop.pids]
        if others and "sleep" in Path(f"/proc/{others[0]}/comm").read_text():
            return others[0]
        time.sleep(0.01)
    raise AssertionError("the background process did not come")


@pytest.fixture
def remap() -> Iterator[Path]:
    """A name as CRIU gives it, which is gone afterwards."""
    path = Path(f"/dev/shm/link_remap.{os.getpid()}")
    yield path
    path.unlink(missing_ok=True)


def cut_with(remap: Path, shop: Workshop) -> Taken:
    """A snapshot of which CRIU has linked a deleted file; killed since, the link is gone."""
    shop.start()
    draft = shop.precopy()
    remap.write_bytes(b"semaphore")
    taken = shop.cut(draft, remaps=[(str(remap), "/dev/shm/sem.x")])
    remap.unlink()
    shop.kill(at_rest=True)
    return taken


def test_link_remaps_are_put_back_before_the_restore_and_gone_after_it(shop: Workshop, remap: Path) -> None:
    rollback = shop.roll_back(cut_with(remap, shop))
    assert remap.read_bytes() == b"semaphore"
    rollback.commit()
    assert not remap.exists()


def test_a_link_remap_that_another_job_has_left_is_not_taken_for_ours_though_it_has_the_same_bytes(
    shop: Workshop, remap: Path
) -> None:
    others = Path(f"/dev/shm/sem.others.{os.getpid()}")
    taken = cut_with(remap, shop)
    others.write_bytes(b"semaphore")
    try:
        remap.hardlink_to(others)
        rollback = shop.roll_back(taken)
        assert remap.read_bytes() == b"semaphore"
        assert not remap.samefile(others)
        rollback.commit()
        assert others.stat().st_nlink == 1
    finally:
        others.unlink()


def test_files_on_another_filesystem_than_the_store_are_kept_and_given_back_exactly(shop: Workshop) -> None:
    place = Path(f"/dev/shm/elsewhere-{os.getpid()}")
    try:
        shop.start()
        shop.ours(["mkdir", str(place)], ["write", f"{place}/state", "one"], ["append", f"{place}/log", "one\n"])
        taken = shop.take()
        shop.ours(["mkdir", f"{place}/new"], ["write", f"{place}/new/x", "x"], ["chmod", f"{place}/new", 0o711])
        shop.ours(["symlink", f"{place}/new/l", "x"], ["fifo", f"{place}/new/pipe"])
        shop.ours(["write", f"{place}/state", "two"], ["append", f"{place}/log", "two\n"])
        shop.kill(at_rest=True)
        before = shop.state_of(place)
        rollback = shop.roll_back(taken)
        assert {name: what[2] for name, what in shop.state_of(place).items()} == {"state": b"one", "log": b"one\n"}
        rollback.undo()
        assert shop.state_of(place) == before
    finally:
        shutil.rmtree(place, ignore_errors=True)


CHANGING = ("rename", "link", "unlink", "mkdir", "rmdir", "ftruncate", "symlink", "mkfifo", "chmod", "chown", "utime")


def killed_after(changes: int, doing: Callable[[], object]) -> bool:
    """Do it in a process that is killed when it has changed something in the filesystem that many times.

    Returns False when it came to its end before.
    """
    child = os.fork()
    if child == 0:
        left = [changes]
        for name in CHANGING:
            setattr(os, name, _deadly(getattr(os, name), left))
        try:
            doing()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _deadly(call: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def wrapper(*arguments: Any, **options: Any) -> Any:
        result = call(*arguments, **options)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapper


def busy(shop: Workshop) -> Taken:
    """A rollback with every kind of step to do."""
    shop.start()
    shop.ours(["append", "log", "one\n"], ["write", "state", "one"], ["write", "gone", "x"], ["mkdir", "d"])
    shop.ours(["write", "d/x", "x"], ["write", "script", "x"], ["write", "x", "file"])
    taken = shop.take()
    shop.ours(["append", "log", "two\n"], ["write", "state", "two"], ["unlink", "gone"], ["rmtree", "d"])
    shop.ours(["write", "new", "x"], ["chmod", "script", 0o700], ["unlink", "x"], ["mkdir", "x"], ["write", "x/y", "y"])
    shop.kill(at_rest=True)
    return taken


def test_a_kill_at_any_moment_of_a_rollback_is_undone_by_whoever_comes_next(shop: Workshop) -> None:
    taken = busy(shop)
    before, kills = shop.state(), 0
    while killed_after(kills + 1, lambda: shop.roll_back(taken)):
        kills += 1
        recover_unfinished(shop.store / "rollback")
        assert shop.state() == before
        shutil.rmtree(shop.store / "rollback")
        (shop.store / "rollback").mkdir()
    assert kills > 30
    assert shop.state() == taken.state


def test_a_kill_at_any_moment_of_undoing_is_completed_by_whoever_comes_next(shop: Workshop) -> None:
    taken = busy(shop)
    before, kills = shop.state(), 0
    while True:
        rollback = shop.roll_back(taken)
        assert shop.state() == taken.state
        if not killed_after(kills + 1, rollback.undo):
            break
        kills += 1
        recover_unfinished(shop.store / "rollback")
        assert shop.state() == before
        shutil.rmtree(shop.store / "rollback")
        (shop.store / "rollback").mkdir()
    assert kills > 15
    assert shop.state() == before


def test_a_blob_that_is_missing_undoes_what_was_done_so_far(shop: Workshop) -> None:
    taken = busy(shop)
    before = shop.state()
    for blob in (taken.path / "files").iterdir():
        if blob.read_bytes() == b"one":
            blob.unlink()
    with pytest.raises(FileNotFoundError):
        shop.roll_back(taken)
    assert shop.state() == before
    assert recover_unfinished(shop.store / "rollback") == []


def test_undoing_does_not_overwrite_what_came_meanwhile(shop: Workshop) -> None:
    shop.start()
    taken = shop.take()
    shop.ours(["mkdir", "epoch7"], ["write", "epoch7/x", "first"])
    shop.kill(at_rest=True)
    rollback = shop.roll_back(taken)
    shop.others(["mkdir", "epoch7"], ["write", "epoch7/x", "second"])
    rollback.undo()
    assert shop.path("epoch7/x").read_text() == "first"
    assert b"second" in shop.kept()


def test_a_device_that_the_tree_wrote_to_is_never_moved(shop: Workshop) -> None:
    shop.start()
    os.mknod(shop.path("null"), 0o20666, os.makedev(1, 3))
    taken = shop.take()
    shop.ours(["write", "null", "x"], ["write", "/dev/null", "x"])
    shop.kill(at_rest=True)
    rollback: Rollback = shop.roll_back(taken)
    assert rollback.summary == "nothing to do"
    assert Path("/dev/null").is_char_device()


def test_journals_of_cells_since_the_cut_count_and_older_ones_do_not(shop: Workshop) -> None:
    shop.start()
    shop.ours(["write", "a", "1"])
    first = shop.take()
    shop.kill(at_rest=True)
    shop.start(first.listing)
    shop.ours(["write", "b", "1"])
    second = shop.take()
    shop.kill(at_rest=True)
    shop.start(second.listing)
    shop.ours(["write", "c", "1"])
    shop.kill(at_rest=True)
    journals = Journals.since(shop.store / "journals", second.journal.name, second.offset)
    assert [path.name for path in journals.paths] == ["000002.jsonl", "000003.jsonl"]
    roll_back(second.listing, BlobReader(second.path / "files"), journals, shop.store / "rollback" / "1").undo()
    shop.roll_back(first)
    assert shop.state() == first.state


def test_output_of_an_earlier_run_is_set_aside_before_a_cold_start_and_given_back_if_that_fails(shop: Workshop) -> None:
    log = shop.store / "output.log"
    assert set_aside([log], shop.store / "rollback") is None
    log.write_text("old lines\n")
    aside = set_aside([log], shop.store / "rollback")
    [kept] = shop.store.glob("rollback/*/files/output.log")
    assert kept.read_text() == "old lines\n"
    assert not log.exists()
    assert recover_unfinished(shop.store / "rollback") == []
    log.write_text("")
    assert aside is not None
    aside.undo()
    assert log.read_text() == "old lines\n"
    assert recover_unfinished(shop.store / "rollback") == []


def test_what_goes_by_itself_before_it_is_moved_away_is_no_failure(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who tidies up, or the living job below a trial restore's view of its files."""
    shop.start()
    shop.ours(["write", "kept", "as it was"])
    taken = shop.take()
    shop.ours(["write", "newer", "x"], ["write", "another", "y"])
    shop.kill(at_rest=True)

    def reached(moment: str) -> None:
        if moment == "rollback-recorded":
            (shop.work / "newer").unlink()

    monkeypatch.setattr("criu_train.workspace.rollback.reached", reached)
    rollback = shop.roll_back(taken)
    assert shop.state() == taken.state
    rollback.undo()
    assert not (shop.work / "newer").exists()
    assert (shop.work / "another").read_text() == "y"
