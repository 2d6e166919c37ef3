"""The watch on real filesystems: who did what, as the journal tells it."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from criu_train.cell import fanotify
from criu_train.cell.passing import Passing
from criu_train.cell.watch import Watch

DRIVER = Path(__file__).resolve().parents[1] / "workspace" / "cell_driver.py"

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")

Told = dict[tuple[str, str], set[str]]  # (who, path below the place) -> what


def told(journal: Path, place: Path, offset: int = 0) -> Told:
    found: Told = {}
    for line in journal.read_bytes()[offset:].decode().splitlines():
        record = json.loads(line)
        if "path" in record and record["path"].startswith(f"{place}/"):
            key = record["who"], record["path"][len(str(place)) + 1 :]
            assert not found.get(key, set()) >= set(record["what"]), f"twice: {line}"
            found.setdefault(key, set()).update(record["what"])
    return found


class Here:
    """A watch in the test's own process: whatever this PID namespace does counts as the tree's."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.journal = place / "journal.jsonl"
        self.root = place / "root"
        self.root.mkdir()
        self.watch = Watch(str(self.journal), [str(self.root)], exclude=[str(self.root / "store")])

    def told(self) -> Told:
        offset = self.watch.offset
        self.watch.sync()
        return told(self.journal, self.root, offset)


@pytest.fixture
def here(place: Path) -> Iterator[Here]:
    here = Here(place)
    here.watch.arm()
    assert here.watch.available, here.watch.reason
    yield here
    here.watch.close()


class Cell:
    """A cell with a worker that does what it is asked."""

    def __init__(self, place: Path) -> None:
        self.root, self.journal = place / "root", place / "journal.jsonl"
        self.root.mkdir()
        settings = {"journal": str(self.journal), "roots": [str(self.root)], "exclude": []}
        self.process = subprocess.Popen(
            [*UNSHARE, sys.executable, str(DRIVER), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline())["available"]

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture
def cell(place: Path) -> Iterator[Cell]:
    cell = Cell(place)
    yield cell
    cell.process.communicate(timeout=10)  # the end of its input ends it


def test_the_trees_doings_are_told_from_those_of_others(cell: Cell) -> None:
    cell.ask(
        ops=[["write", f"{cell.root}/ours", "x"], ["shell", str(cell.root), "echo >by-a-child; mkdir d; touch d/x"]]
    )
    (cell.root / "others").write_text("x")
    (cell.root / "d" / "others").write_text("x")
    cell.ask(sync=True)
    assert told(cell.journal, cell.root) == {
        ("ours", "ours"): {"make", "write"},
        ("ours", "by-a-child"): {"make", "write"},
        ("ours", "d"): {"make"},
        ("ours", "d/x"): {"make", "write", "attrib"},
        ("other", "others"): {"make", "write"},
        ("other", "d/others"): {"make", "write"},
    }


def test_others_outside_of_the_roots_are_not_journaled(cell: Cell, place: Path) -> None:
    (place / "elsewhere").write_text("x")
    cell.ask(sync=True)
    assert told(cell.journal, place) == {}


def test_others_are_journaled_where_the_tree_writes_outside_of_the_roots(cell: Cell, place: Path) -> None:
    (place / "results").mkdir()
    cell.ask(ops=[["write", f"{place}/results/ours", "x"]])
    cell.ask(sync=True)
    (place / "results" / "others").write_text("x")
    cell.ask(sync=True)
    assert ("other", "results/others") in told(cell.journal, place)


def test_a_write_is_told_before_the_file_is_closed(cell: Cell) -> None:
    (cell.root / "log").write_text("from before\n")
    (cell.root / "console").write_text("from before\n")
    cell.ask(sync=True)
    offset = cell.journal.stat().st_size
    with open(cell.root / "console", "a") as console:
        console.write("the supervisor's own output, redirected\n")
        console.flush()
        cell.ask(ops=[["hold", f"{cell.root}/log", "ours"]])
        cell.ask(sync=True)
        assert told(cell.journal, cell.root, offset) == {("ours", "log"): {"write"}, ("other", "console"): {"write"}}


def test_the_same_doing_is_written_once_until_the_next_sync(here: Here) -> None:
    for _ in range(50):
        (here.root / "state").write_text("x")
    assert here.told() == {("ours", "state"): {"make", "write"}}
    (here.root / "state").write_text("y")
    assert here.told() == {("ours", "state"): {"write"}}


def test_files_that_come_and_go_in_an_instant_do_not_fill_the_journal(here: Here) -> None:
    (here.root / "known").write_text("x")
    here.told()
    for number in range(50):
        (here.root / f"tmp{number}").write_text("x")
        (here.root / f"tmp{number}").unlink()
    (here.root / "known").unlink()
    (here.root / "again").write_text("x")
    (here.root / "again").unlink()
    (here.root / "again").write_text("x")
    found = here.told()
    assert found.keys() == {("ours", "known"), ("ours", "again")}
    assert "gone" in found["ours", "known"]


def test_renaming_is_going_and_being_made_and_moves_what_is_inside(here: Here) -> None:
    (here.root / "draft").mkdir()
    (here.root / "draft" / "weights").write_text("1")
    here.told()
    (here.root / "draft").rename(here.root / "final")
    (here.root / "final" / "weights").write_text("2")
    assert here.told() == {
        ("ours", "draft"): {"gone"},
        ("ours", "final"): {"make"},
        ("ours", "final/weights"): {"write"},
    }


def test_rotated_directories_are_each_told_by_their_own_name(here: Here) -> None:
    for name in ("last", "last.1"):
        (here.root / name).mkdir()
        (here.root / name / "x").write_text(name)
    here.told()
    (here.root / "last.1").rename(here.root / "last.2")
    (here.root / "last").rename(here.root / "last.1")
    (here.root / "last.2" / "old").write_text("x")
    (here.root / "last.1" / "new").write_text("x")
    assert {("ours", "last.2/old"), ("ours", "last.1/new")} <= here.told().keys()


def test_deletion_links_modes_and_strange_names_are_told(here: Here) -> None:
    names = [b"with\nnewline", b"not-utf8-\xff", "späth ☃".encode(), b"a" * 255]
    for name in names:
        Path(os.fsdecode(bytes(here.root) + b"/" + name)).write_text("x")
    (here.root / "kept").write_text("x")
    (here.root / "link").hardlink_to(here.root / "kept")
    (here.root / "kept").chmod(0o600)
    here_told = here.told()
    assert {("ours", os.fsdecode(name)) for name in names} <= here_told.keys()
    assert here_told["ours", "link"] == {"make"}
    assert "attrib" in here_told["ours", "kept"]
    (here.root / "kept").unlink()
    assert here.told() == {("ours", "kept"): {"gone"}}


def test_the_store_and_crius_own_files_are_not_journaled(here: Here) -> None:
    (here.root / "store").mkdir()
    here.told()
    (here.root / "store" / "blob").write_text("x")
    (here.root / "link_remap.17").write_text("x")
    (here.root / "file.cr.1a.ghost").write_text("x")
    assert here.told() == {}


def test_an_ignored_process_is_silent_until_its_number_is_free_again(here: Here) -> None:
    here.watch.ignore(os.getpid())
    (here.root / "by-criu").write_text("x")
    here.watch.heed(os.getpid())
    (here.root / "by-us").write_text("x")
    assert here.told() == {("ours", "by-us"): {"make", "write"}}


def test_shared_memory_and_other_filesystems_are_watched_too(here: Here) -> None:
    path = Path(f"/dev/shm/watched-{os.getpid()}")
    path.write_text("x")
    here.watch.sync()
    path.unlink()
    assert ("ours", path.name) in told(here.journal, Path("/dev/shm"))


def test_the_heartbeat_moves_the_journals_time(here: Here) -> None:
    os.utime(here.journal, (0, 0))
    here.watch.heartbeat()
    assert time.time() - here.journal.stat().st_mtime < 5


def test_events_wake_the_loop_and_come_to_the_journal_at_once(here: Here) -> None:
    here.told()
    (here.root / "x").write_text("x")
    assert select.select([here.watch], [], [], 1)[0]
    here.watch.handle()
    assert ("ours", "x") in told(here.journal, here.root)


def write_again_and_again(here: Here, name: str) -> None:
    """So often that it is not heard of any more."""
    for _ in range(3):
        with (here.root / name).open("a") as file:
            file.write("x")
        here.watch.handle()
    assert str(here.root / name) in here.watch._muted._files  # and what others write to all the time


def is_heard(here: Here) -> bool:
    return bool(select.select([here.watch], [], [], 0.05)[0])


def test_a_file_that_is_written_all_the_time_wakes_nobody_until_the_next_cut(here: Here) -> None:
    write_again_and_again(here, "log")

    def wakes_nobody() -> bool:
        here.watch.handle()  # others write to this disk as well
        with (here.root / "log").open("a") as file:
            file.write("x")
            file.flush()
            return not is_heard(here)

    assert any(wakes_nobody() for _ in range(500))
    offset = here.watch.sync()
    (here.root / "log").write_text("y")
    assert is_heard(here)
    here.watch.handle()
    assert told(here.journal, here.root, offset)["ours", "log"] >= {"write"}


def test_a_directory_that_is_removed_elsewhere_changes_nothing_for_it(here: Here) -> None:
    write_again_and_again(here, "log")
    (here.root / "d").mkdir()
    (here.root / "d").rmdir()
    here.watch.handle()
    assert len(here.watch._muted) == 1


def test_its_filesystem_can_be_unmounted_a_minute_later(here: Here) -> None:
    write_again_and_again(here, "log")
    here.watch._muted._since -= 61
    here.watch.heartbeat()
    assert len(here.watch._muted) == 0


def test_who_waits_for_the_reader_of_a_fifo_never_meets_us(here: Here) -> None:
    fifo = here.root / "fifo"
    os.mkfifo(fifo)
    got = []
    for number in range(3):
        writer = subprocess.Popen(["sh", "-c", f"echo {number} > {fifo}"])
        if number == 2:
            here.watch.handle()  # what the second one did is heard while the third waits
            time.sleep(0.2)
            here.watch.handle()
        got.append(fifo.read_text())
        assert writer.wait(5) == 0
    assert got == ["0\n", "1\n", "2\n"]


def test_the_sign_of_life_wakes_nobody(here: Here) -> None:
    def wakes_nobody() -> bool:
        here.told()  # others write to this disk as well
        here.watch.heartbeat()
        return not is_heard(here)

    assert any(wakes_nobody() for _ in range(500))


@pytest.mark.parametrize("directory", [False, True])
def test_a_file_that_gets_another_name_is_heard_of_under_that(here: Here, directory: bool) -> None:
    (here.root / "logs").mkdir()
    write_again_and_again(here, "logs/log")
    if directory:
        (here.root / "logs").rename(here.root / "old")
    else:
        (here.root / "old").mkdir()
        (here.root / "logs/log").rename(here.root / "old/log")
    here.watch.handle()
    offset = here.watch.offset
    (here.root / "old/log").write_text("y")
    here.watch.handle()
    assert told(here.journal, here.root / "old", offset)["ours", "log"] >= {"write"}


def test_a_file_that_is_deleted_gives_its_room_back_although_it_was_not_heard_of(here: Here) -> None:
    write_again_and_again(here, "log")
    (here.root / "log").unlink()
    here.watch.handle()
    assert len(here.watch._muted) == 0


def test_a_burst_of_ten_thousand_files_loses_none(here: Here) -> None:
    for number in range(10_000):
        os.close(os.open(here.root / str(number), os.O_CREAT | os.O_WRONLY))
    assert here.told().keys() == {("ours", str(number)) for number in range(10_000)}
    assert '"overflow"' not in here.journal.read_text()


def test_a_journal_that_could_not_be_written_for_a_while_says_so_afterwards(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_write = os.write

    def disk_full(fd: int, data: bytes) -> int:
        if data.startswith(b"{"):
            return whole_write(fd, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (here.root / "lost").mkdir()
    monkeypatch.setattr(os, "write", disk_full)
    here.watch.sync()
    monkeypatch.setattr(os, "write", whole_write)
    (here.root / "found").mkdir()
    here.watch.sync()
    torn, *whole = here.journal.read_text().splitlines()[1:]
    assert torn.startswith('{"who":"o')
    records = [json.loads(line) for line in whole]  # others write to this disk as well
    overflow, found = (one for one in records if one.get("path", str(here.root)).startswith(str(here.root)))
    assert overflow == {"what": ["overflow"]}
    assert found["path"].endswith("/found")
    assert here.watch.offset == here.journal.stat().st_size


def test_where_the_kernel_refuses_the_journal_says_so_and_the_heart_still_beats(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), "fanotify_init")

    monkeypatch.setattr(fanotify, "init", refuse)
    here = Here(place)
    here.watch.arm()
    assert not here.watch.available
    assert here.watch.reason == "fanotify_init: Operation not permitted"
    first = json.loads(here.journal.read_text())
    assert first["watched"] is False and first["reason"] == here.watch.reason
    here.watch.heartbeat()
    assert here.watch.sync() == here.journal.stat().st_size
    here.watch.close()


def test_an_overlay_is_watched_directory_by_directory_with_new_and_renamed_ones(place: Path) -> None:
    """Overlay's handles can't be opened, as in a container."""
    for name in ("lower", "upper", "work", "root"):
        (place / name).mkdir()
    (place / "lower" / "old").mkdir()
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(place / "root")], check=True)
    try:
        watch = Watch(str(place / "journal.jsonl"), [str(place / "root")])
        watch.arm()
        assert watch.available, watch.reason
        root = place / "root"
        (root / "file").write_text("x")
        (root / "old" / "file").write_text("x")
        (root / "new").mkdir()
        watch.sync()
        (root / "new" / "file").write_text("x")
        watch.sync()
        (root / "new").rename(root / "newer")
        (root / "newer" / "second").write_text("x")
        watch.sync()
        watch.close()
        keys = told_once_per_sync(place / "journal.jsonl", root)
        assert {"file", "old/file", "new", "new/file", "newer", "newer/second"} <= keys
    finally:
        subprocess.run(["umount", str(place / "root")], check=True)


def told_once_per_sync(journal: Path, place: Path) -> set[str]:
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    return {record["path"][len(str(place)) + 1 :] for record in records if "path" in record}


def test_short_lived_files_in_shared_places_are_told_only_if_they_stay(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    here.watch._passing = Passing((), clock=lambda: now[0])
    stays, goes = (Path(f"/dev/shm/watched-{os.getpid()}-{name}") for name in ("stays", "goes"))
    names = {stays.name, goes.name}

    def heard() -> set[str]:
        here.watch.handle()
        here.watch.heartbeat()
        return {name for _, name in told(here.journal, Path("/dev/shm"))} & names

    try:
        stays.write_text("x")
        goes.write_text("x")
        assert heard() == set()
        now[0] += 0.9
        goes.unlink()
        assert heard() == set()
        now[0] += 0.2
        assert heard() == {stays.name}
        assert told(here.journal, Path("/dev/shm"))["ours", stays.name] >= {"make", "write"}
    finally:
        stays.unlink(missing_ok=True)
        goes.unlink(missing_ok=True)


def test_a_sync_tells_also_what_was_made_in_the_last_second(here: Here) -> None:
    path = Path(f"/tmp/watched-{os.getpid()}")
    path.write_text("x")
    here.watch.handle()
    assert ("ours", path.name) not in told(here.journal, Path("/tmp"))
    here.watch.sync()
    path.unlink()
    assert told(here.journal, Path("/tmp"))["ours", path.name] >= {"make", "write"}


def test_thousands_of_short_lived_files_and_directories_leave_nothing_in_journal_and_memory(here: Here) -> None:
    offset = here.watch.offset
    for number in range(3000):
        directory = Path(f"/dev/shm/watched-{os.getpid()}-{number}")
        directory.mkdir()
        (directory / "x").write_text("x")
        if number % 50 == 0:
            here.watch.handle()
        (directory / "x").unlink()
        directory.rmdir()
    here.watch.sync()
    assert not [name for _, name in told(here.journal, Path("/dev/shm"), offset) if f"-{os.getpid()}-" in name]
    assert len(here.watch._passing) == 0 and len(here.watch._our_dirs) < 1000


def test_a_journal_that_can_be_written_again_says_so_at_the_next_heartbeat_and_tells_again_what_was_lost(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = here.journal.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", disk_full)
        (here.root / "state").write_text("x")
        here.watch.handle()
    here.watch.heartbeat()
    assert here.journal.read_text() == f'{before}\n{{"what":["overflow"]}}\n'
    offset = here.watch.offset
    (here.root / "state").write_text("y")
    here.watch.handle()
    assert told(here.journal, here.root, offset) == {("ours", "state"): {"write"}}
