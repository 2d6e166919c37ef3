"""What a snapshot of the workspace holds, and how little it copies."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from pathlib import Path

import pytest
from workshop import Taken, Workshop

from criu_train.errors import DumpFailedError, StoreError
from criu_train.workspace.blobs import PART_BYTES
from criu_train.workspace.listing import Entry, read_listing
from criu_train.workspace.tracker import Tracker

MIB = 1 << 20


def entry_of(taken: Taken, shop: Workshop, name: str) -> Entry:
    return next(entry for entry in taken.listing.entries if entry.path == str(shop.work / name))


def bytes_of(taken: Taken, entry: Entry) -> bytes:
    assert entry.parts is not None
    return b"".join((taken.path / "files" / part.digest).read_bytes() for part in entry.parts)


def written(taken: Taken) -> int:
    """Bytes of blobs that no other snapshot shares."""
    blobs = [path.stat() for path in (taken.path / "files").iterdir()]
    return sum(info.st_size for info in blobs if info.st_nlink == 1)


def rest() -> None:
    """Long enough for the clock to tell a later change from an earlier one."""
    time.sleep(0.03)


def test_unchanged_files_are_linked_from_the_snapshot_before(shop: Workshop) -> None:
    shop.path("data").write_bytes(os.urandom(MIB))
    shop.start()
    shop.ours(["write", "state", "x" * MIB])
    rest()
    first, second = shop.take(), shop.take()
    assert written(second) == 0
    assert {p.name: p.stat().st_ino for p in (first.path / "files").iterdir()} == {
        p.name: p.stat().st_ino for p in (second.path / "files").iterdir()
    }


def test_a_log_that_grew_costs_its_tail_and_a_thousand_tails_do_not_pile_up(shop: Workshop) -> None:
    shop.start()
    shop.ours(["append", "log", "x" * MIB])
    taken = shop.take()
    for number in range(80):
        shop.ours(["append", "log", f"line {number}\n"])
        newer = shop.take()
        if number < 60:
            assert written(newer) < 100
        taken = newer
    entry = entry_of(taken, shop, "log")
    assert bytes_of(taken, entry) == shop.path("log").read_bytes()
    assert entry.parts is not None and len(entry.parts) < 70


def test_one_changed_page_of_a_large_map_costs_one_part(shop: Workshop) -> None:
    shop.path("map").write_bytes(os.urandom(4 * PART_BYTES))
    shop.start()
    shop.ours(["map", "map", "first"])
    shop.take()
    shop.ours(["poke", 0, "second"])
    taken = shop.take()
    assert written(taken) == PART_BYTES
    assert bytes_of(taken, entry_of(taken, shop, "map")) == shop.path("map").read_bytes()


def test_what_changes_between_precopy_and_cut_is_as_of_the_cut(shop: Workshop) -> None:
    shop.path("bystander").write_text("from before")
    shop.start()
    shop.ours(["write", "a", "1"], ["write", "b", "1"], ["write", "c", "1"], ["append", "log", "1"], ["mkdir", "d"])
    draft = shop.precopy()
    shop.ours(["write", "a", "2"], ["unlink", "b"], ["rename", "c", "e"], ["append", "log", "2"], ["write", "d/x", "2"])
    shop.ours(["append", "bystander", " and after"], ["mkdir", "new"], ["write", "new/x", "2"], ["symlink", "s", "a"])
    taken = shop.cut(draft)
    saved = {
        os.path.relpath(entry.path, shop.work): bytes_of(taken, entry)
        for entry in taken.listing.entries
        if entry.kind == "file"
    }
    assert saved == {
        "a": b"2", "e": b"1", "log": b"12", "d/x": b"2", "bystander": b"from before and after", "new/x": b"2",
    }  # fmt: skip
    used = {part.digest for entry in taken.listing.entries for part in entry.parts or ()}
    assert {path.name for path in (taken.path / "files").iterdir()} == used


def test_a_map_written_and_unmapped_between_precopy_and_cut_is_as_of_the_cut(shop: Workshop) -> None:
    shop.path("map").write_bytes(bytes(5000))
    shop.start()
    shop.ours(["map", "map", "first"])
    rest()
    draft = shop.precopy()
    shop.ours(["poke", 0, "second"], ["unmap"])
    taken = shop.cut(draft)
    assert bytes_of(taken, entry_of(taken, shop, "map")).startswith(b"second")


def test_a_file_is_as_of_the_cut_by_all_its_names_whichever_the_tree_used(shop: Workshop) -> None:
    shop.path("from-before").write_text("1")
    shop.path("map").write_bytes(bytes(5000))
    shop.start()
    shop.ours(["link", "from-before", "ours"], ["map", "map", "first"], ["link", "map", "other"], ["unlink", "map"])
    rest()
    draft = shop.precopy()
    shop.ours(["append", "ours", "2"], ["poke", 0, "second"])
    taken = shop.cut(draft)
    assert bytes_of(taken, entry_of(taken, shop, "from-before")) == b"12"
    assert bytes_of(taken, entry_of(taken, shop, "other")).startswith(b"second")


def test_a_draft_that_was_thrown_away_does_not_leave_the_next_snapshot_incomplete(shop: Workshop) -> None:
    shop.path("data").write_text("bystander")
    shop.start()
    shop.ours(["write", "state", "1"])
    rest()
    for path in (shop.precopy(), shop.take().path):
        for blob in (path / "files").iterdir():
            blob.unlink()
    taken = shop.take()
    for entry in taken.listing.entries:
        if entry.kind == "file":
            assert bytes_of(taken, entry) == Path(entry.path).read_bytes()


def test_blobs_are_for_the_owner_only_whatever_the_umask(shop: Workshop) -> None:
    shop.start()
    shop.ours(["write", "state", "secret"], ["chmod", "state", 0o666])
    old = os.umask(0)
    try:
        taken = shop.take()
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in (taken.path / "files").iterdir()} == {0o600}


def test_a_large_closed_file_is_read_when_the_tree_runs_again_and_still_is_as_of_the_cut(shop: Workshop) -> None:
    shop.start()
    draft = shop.precopy()
    shop.ours(["fill", "model", "x", 17 * MIB])
    rest()
    shop.sync()
    shop.tracker.cut(shop.pids, draft / "files")
    assert list((draft / "files").iterdir()) == []  # nothing was copied while the tree stood still
    shop.ours(["rename", "model", "final"], ["write", "model", "other"])
    listing = shop.tracker.finish(draft / "files")
    entry = next(entry for entry in listing.entries if entry.path.endswith("/model"))
    assert entry.parts is not None and sum(part.size for part in entry.parts) == 17 * MIB
    assert b"".join((draft / "files" / p.digest).read_bytes() for p in entry.parts) == b"x" * (17 * MIB)


def test_a_large_file_that_changes_too_soon_fails_the_dump_and_is_copied_frozen_the_next_time(shop: Workshop) -> None:
    shop.start()
    draft = shop.precopy()
    shop.ours(["fill", "model", "x", 17 * MIB])
    rest()
    shop.sync()
    shop.tracker.cut(shop.pids, draft / "files")
    shop.ours(["patch", "model", 0, "y"])
    with pytest.raises(DumpFailedError, match="model was changed"):
        shop.tracker.finish(draft / "files")
    draft = shop.precopy()
    shop.ours(["fill", "model", "z", 17 * MIB])
    rest()
    shop.sync()
    shop.tracker.cut(shop.pids, draft / "files")
    shop.ours(["patch", "model", 0, "y"])
    listing = shop.tracker.finish(draft / "files")
    assert next(entry for entry in listing.entries if entry.path.endswith("/model")).parts


def test_files_over_the_limit_are_named_cut_when_they_only_grew_and_else_told(shop: Workshop) -> None:
    shop.policy = dataclasses.replace(shop.policy, file_limit=1000)
    shop.start()
    shop.ours(["write", "small", "x" * 1000], ["append", "log", "x" * 2000], ["write", "model", "x" * 2000])
    taken = shop.take()
    assert taken.listing.unsaved == (str(shop.path("log")), str(shop.path("model")))
    shop.ours(["append", "log", "tail"], ["write", "model", "y" * 2000], ["write", "small", "y"])
    shop.kill(at_rest=True)
    rollback = shop.roll_back(taken)
    assert shop.path("log").read_text() == "x" * 2000
    assert shop.path("small").read_text() == "x" * 1000
    assert rollback.warnings == (f"changed since the snapshot and too large to have been saved: {shop.path('model')}",)


def test_files_over_the_limit_that_were_removed_or_replaced_are_put_back_by_another_name(shop: Workshop) -> None:
    shop.policy = dataclasses.replace(shop.policy, file_limit=1000)
    shop.start()
    shop.ours(["write", "step1", "x" * 2000], ["write", "last", "x" * 2000], ["write", "damaged", "x" * 2000])
    taken = shop.take()
    shop.ours(["unlink", "step1"], ["rewrite", "last", "y" * 2000], ["patch", "damaged", 0, "y"], ["unlink", "damaged"])
    shop.kill(at_rest=True)
    before = shop.state()
    rollback = shop.roll_back(taken)
    assert {name: shop.state()[name] for name in ("step1", "last")} == {
        name: taken.state[name] for name in ("step1", "last")
    }
    assert rollback.warnings == (
        f"changed since the snapshot and too large to have been saved: {shop.path('damaged')}",
    )
    rollback.undo()
    assert shop.state() == before


def test_bystanders_are_kept_within_limits_and_installed_environments_not_at_all(shop: Workshop) -> None:
    shop.policy = dataclasses.replace(shop.policy, bystander_file_limit=100, bystander_total=250)
    for name in (".venv/lib", ".git/objects", "node_modules/x", "src"):
        shop.path(name).mkdir(parents=True)
        (shop.path(name) / "file").write_text("x")
    shop.path(".venv/pyvenv.cfg").write_text("")
    shop.path("large").write_text("x" * 101)
    for number in range(3):
        shop.path(f"data{number}").write_text(str(number) * 100)
    shop.start()
    taken = shop.take()
    listed = {os.path.relpath(entry.path, shop.work): entry for entry in taken.listing.entries}
    assert not any(name.startswith((".venv/", ".git/", "node_modules/")) for name in listed)
    assert listed["large"].parts is None
    assert sum(listed[f"data{number}"].parts is not None for number in range(3)) == 2
    assert taken.listing.complete and taken.listing.unsaved == ()


def test_where_more_lies_than_is_listed_files_from_before_are_never_taken_for_new_ones(shop: Workshop) -> None:
    shop.policy = dataclasses.replace(shop.policy, bystander_count=5)
    for number in range(20):
        shop.path(f"data{number}").write_text("from before")
    shop.start()
    taken = shop.take()
    assert not taken.listing.complete
    shop.go_deaf()
    shop.ours(["write", "new", "x"], *(["chmod", f"data{number}", 0o600] for number in range(20)))
    shop.kill()
    shop.roll_back(taken)
    assert not shop.path("new").exists()
    assert all(shop.path(f"data{number}").read_text() == "from before" for number in range(20))


@pytest.mark.parametrize("first_line", [{"what": ["start"], "watched": False}, {"what": ["overflow"]}])
def test_without_a_watch_the_roots_are_listed_instead(shop: Workshop, first_line: dict[str, object]) -> None:
    shop.path("data").write_text("from before")
    shop.start()
    journal = shop.work / ".criu-train" / "journals" / "000009.jsonl"
    start = {"at": time.time_ns(), "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    journal.write_text(json.dumps({**start, "what": ["start"]}) + "\n" + json.dumps(first_line) + "\n")
    shop.journal = journal
    shop.tracker = Tracker(shop.policy, None, journal)
    shop.go_deaf()
    shop.ours(["mkdir", "d"], ["write", "d/x", "1"], ["append", "log", "1"])
    draft = shop.precopy()
    shop.ours(["write", "d/y", "1"], ["append", "log", "2"], ["append", "data", " and after"])
    taken = shop.cut(draft)
    shop.ours(
        ["write", "d/z", "1"], ["append", "log", "3"], ["unlink", "d/x"], ["write", "data", "other"], ["mkdir", "e"]
    )
    shop.kill()
    os.utime(journal)
    shop.roll_back(taken)
    assert shop.state() == taken.state


def test_large_volatile_files_are_left_to_be_installed_again(shop: Workshop, tmp_path: Path) -> None:
    shop.policy = dataclasses.replace(shop.policy, volatile_file_limit=1000)
    shop.start()
    for name, size in (("small", 1000), ("large", 1001)):
        (tmp_path / name).write_bytes(bytes(size))
    with open(tmp_path / "small"), open(tmp_path / "large"):
        shop.pids.append(os.getpid())
        taken = shop.take()
    saved = {
        Path(entry.path).name: entry.parts for entry in taken.listing.entries if entry.path.startswith(f"{tmp_path}/")
    }
    assert saved["small"] is not None and saved["large"] is None


def test_directories_of_bound_sockets_are_listed_as_needed(shop: Workshop, tmp_path: Path) -> None:
    shop.start()
    directory = tmp_path / "pymp-x"
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "listener-x"))
        shop.pids.append(os.getpid())
        taken = shop.take()
    entry = next(entry for entry in taken.listing.entries if entry.path == str(directory))
    assert (entry.kind, entry.mode, entry.held) == ("dir", 0o700, True)


def test_the_first_snapshot_after_a_restore_copies_only_what_is_new(shop: Workshop) -> None:
    shop.path("data").write_bytes(os.urandom(MIB))
    shop.start()
    shop.ours(["write", "state", "x" * MIB], ["append", "log", "x" * MIB])
    rest()
    first = shop.take()
    shop.ours(["append", "log", "more"])
    shop.kill(at_rest=True)
    shop.roll_back(first).commit()
    shop.start(first.listing)
    shop.tracker = Tracker(shop.policy, first.listing, shop.journal, blobs=first.path / "files")
    shop.ours(["append", "log", "again"])
    assert written(shop.take()) == len("again")


def test_listings_of_another_version_or_garbled_ones_are_refused_with_a_tip(shop: Workshop) -> None:
    shop.start()
    path = shop.take().path / "listing.json"
    content = json.loads(path.read_bytes())
    elsewhere = [{**content["entries"][0], "held_as": "../../../etc/shadow"}]
    changes: tuple[dict[str, object], ...] = ({"version": 2}, {"entries": [{}]}, {"entries": elsewhere})
    for damaged in (*(json.dumps(content | change) for change in changes), "{", "[]"):
        path.write_text(damaged)
        with pytest.raises(StoreError) as refusal:
            read_listing(path)
        assert refusal.value.tip


def test_paths_that_came_and_went_do_not_pile_up_in_memory(shop: Workshop) -> None:
    shop.start()
    shop.ours(["mkdir", "d"], ["write", "d/stays", "x"])
    for number in range(5):
        for other in range(40):
            shop.ours(["write", f"d/{number}-{other}", "x"], ["unlink", f"d/{number}-{other}"])
        shop.others(["write", "d/others", "x"])
        taken = shop.take()
    flags = shop.tracker._catalog._evidence.flags
    assert set(flags) <= {entry.path for entry in taken.listing.entries}
    assert entry_of(taken, shop, "d/others").role == "bystander"
