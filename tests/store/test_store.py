"""The store as a whole: who may use it, how it counts, what it remembers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_samples import FILES, add, facts, mode

import criu_train
from criu_train.errors import StoreError, UsageError
from criu_train.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


def test_a_new_store_is_private_and_keeps_its_identity(tmp_path: Path) -> None:
    store = Store.create_or_open(tmp_path / "deep" / "er" / "store")
    assert mode(store.layout.root) == 0o700
    assert mode(store.layout.config) == 0o600
    again = Store.create_or_open(store.layout.root)
    assert (again.id, again.pid_base) == (store.id, store.pid_base)
    assert (again.run, again.snapshots()) == (None, [])


def test_stores_number_their_trainings_differently_and_leave_room_above(tmp_path: Path) -> None:
    bases = {Store.create_or_open(tmp_path / str(number)).pid_base for number in range(30)}
    assert len(bases) > 15
    assert all(1000 <= base < 32768 * 0.6 and base % 100 == 0 for base in bases)


def test_a_place_without_a_store_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^there is no store at .*/nowhere$") as caught:
        Store.open(tmp_path / "nowhere")
    assert "criu-train run" in caught.value.tip
    assert Store.open_if_any(tmp_path / "nowhere") is None
    (tmp_path / "empty").mkdir()
    assert Store.open_if_any(tmp_path / "empty") is None


def test_a_directory_with_other_things_in_it_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"is no store, and there is something else in it \(thesis.tex\)"):
        Store.create_or_open(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mutex", "thesis.tex"]


def test_a_store_whose_making_was_cut_off_is_made_the_next_time(tmp_path: Path) -> None:
    for name in ("snapshots", "journals"):
        (tmp_path / name).mkdir()
    (tmp_path / ".store.json.tmp").write_text('{"vers')
    assert add(Store.create_or_open(tmp_path)).status == "complete"


def test_a_file_in_the_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(StoreError, match=r"File exists|is not a directory"):
        Store.create_or_open(tmp_path / "store")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"version": 1}', b"\xff\xfe", b"null"])
def test_a_store_json_that_can_not_be_read_is_told_with_a_tip(store: Store, content: bytes) -> None:
    store.layout.config.write_bytes(content)
    with pytest.raises(StoreError, match=r"store\.json can't be read"):
        Store.open(store.layout.root)


def test_a_store_of_a_later_version_is_left_alone(store: Store) -> None:
    config = json.loads(store.layout.config.read_bytes())
    store.layout.config.write_text(json.dumps(config | {"version": 2}))
    with pytest.raises(StoreError, match="the store is of version 2"):
        Store.open(store.layout.root)


def test_sequence_numbers_are_never_used_twice(store: Store) -> None:
    first, second = add(store), add(store)
    assert first.id.endswith("Z-000001") and second.id.endswith("Z-000002")
    store.delete([first.id, second.id])
    assert add(store).sequence == 3
    store.new_draft("run-1", "timer").discard("no")
    store.prune(1)
    assert add(store).sequence == 5


def test_a_lost_counter_does_not_bring_old_numbers_back(store: Store) -> None:
    add(store), add(store)
    config = json.loads(store.layout.config.read_bytes())
    store.layout.config.write_text(json.dumps(config | {"next_sequence": 1}))
    (store.layout.snapshots / ".trash-20261121T204512Z-000041").mkdir()
    assert add(store).sequence == 42


def test_snapshots_are_ordered_by_number_when_the_clock_went_back(store: Store) -> None:
    older = add(store)
    newer = older.path.with_name("19990101T000000Z-000002")
    draft = store.new_draft("run-1", "timer")
    draft.path.rename(newer)
    assert [one.id for one in store.snapshots()] == [older.id, "19990101T000000Z-000002"]


def test_several_processes_can_take_numbers_at_once(store: Store) -> None:
    script = (
        "import sys; from pathlib import Path; from criu_train.store.store import Store\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "for _ in range(20): store.new_draft('run', 'timer').discard('')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(criu_train.__file__).parent.parent)}
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(store.layout.root)], env=environment) for _ in range(3)
    ]
    assert [worker.wait(30) for worker in workers] == [0, 0, 0]
    assert [one.sequence for one in store.snapshots()] == list(range(1, 61))


def test_a_run_is_remembered_from_its_start_to_its_end(store: Store) -> None:
    run = store.begin_run(("python", "train.py", "--lr", "0.1"), "/home/me")
    again = Store.open(store.layout.root)
    assert again.run == run and run.finished_at is None
    again.finish_run(0, "it ended by itself")
    assert store.run is not None
    assert (store.run.id, store.run.exit_code, store.run.how) == (run.id, 0, "it ended by itself")
    assert store.run.finished_at is not None


def test_a_run_whose_command_could_not_be_executed_gives_way_to_the_one_before(store: Store) -> None:
    store.begin_run(("typo",), "/")
    store.forget_run()
    assert store.run is None
    before = store.begin_run(("python",), "/")
    store.begin_run(("pyton",), "/")
    store.forget_run()
    assert store.run == before


def test_a_finished_run_can_be_resumed_from_one_of_its_snapshots(store: Store) -> None:
    run = store.begin_run(("python",), "/")
    store.finish_run(0, "ended")
    assert store.resume_run(run.id, run.command, run.cwd) == run
    assert store.run == run
    later = store.begin_run(("other",), "/")
    assert store.resume_run(run.id, run.command, run.cwd) == run
    assert store.resume_run(later.id, later.command, later.cwd) == later
    unknown = store.resume_run("a-run-before-all-those", ("old",), "/old")
    assert (unknown.id, unknown.command, unknown.finished_at) == ("a-run-before-all-those", ("old",), None)


def test_a_branch_abandons_the_later_snapshots_of_its_run_only(store: Store) -> None:
    first, second, other, third = add(store), add(store), add(store, run="run-2"), add(store)
    assert store.abandon_after(second.id) == [third.id]
    assert [one.id for one in store.snapshots() if one.abandoned] == [third.id]
    assert store.find("latest").id == other.id
    branch = add(store)
    assert [one.id for one in store.snapshots() if not one.abandoned] == [first.id, second.id, other.id, branch.id]


def test_an_abandoned_snapshot_that_is_restored_is_abandoned_no_more(store: Store) -> None:
    first, second, third = add(store), add(store), add(store)
    store.abandon_after(first.id)
    store.abandon_after(second.id)
    assert [one.id for one in store.snapshots() if one.abandoned] == [third.id]


def test_a_trial_restore_is_remembered_with_the_snapshot(store: Store) -> None:
    first, second, third = add(store), add(store), add(store)
    store.mark_proven(first.id, True)
    store.mark_proven(second.id, False)
    assert [one.proven for one in store.snapshots()] == [True, False, None]
    store.delete([first.id])
    assert [one.proven for one in store.snapshots()] == [False, None]
    assert first.id not in store.layout.config.read_text()
    assert third.status == "complete"


def test_a_snapshot_is_found_by_id_beginning_number_and_as_the_latest(store: Store) -> None:
    first, second = add(store), add(store)
    for text in (second.id, "2", "000002", "latest"):
        assert store.find(text).id == second.id
    early = first.path.with_name("19990101T000000Z-000009")
    first.path.rename(early)
    assert store.find("1999").id == early.name


def test_an_id_that_fits_none_or_several_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="there is no complete snapshot yet"):
        store.find("latest")
    add(store), add(store)
    with pytest.raises(UsageError, match="'20' could be any of 2 snapshots"):
        store.find("20")
    for text in ("77", "", "x", "../store.json"):
        with pytest.raises(UsageError, match="there is no snapshot"):
            store.find(text)


def test_journals_are_numbered_one_after_the_other(store: Store) -> None:
    first = store.next_journal()
    assert first == store.layout.journals / "000001.jsonl" and not first.exists()
    first.touch()
    assert store.next_journal().name == "000002.jsonl"


def test_earlier_snapshots_are_the_complete_ones_newest_first(store: Store) -> None:
    first, other, third = add(store), add(store, run="run-2"), add(store)
    broken = add(store)
    (broken.path / "COMPLETE").write_text("?")
    store.new_draft("run-1", "timer")
    assert store.earlier() == [third.path, other.path, first.path]
    many = [add(store).path for _ in range(9)]
    assert store.earlier() == many[:0:-1]


def test_what_the_newest_snapshot_added_tells_how_much_the_next_one_may_need(store: Store) -> None:
    assert store.added_by_newest() == 0
    add(store)
    assert store.added_by_newest() == sum(map(len, FILES.values()))
    draft = store.new_draft("run-1", "timer")
    (draft.images / "small.img").write_bytes(b"12345")
    newest = draft.publish(facts())
    assert store.added_by_newest() == 5
    (newest.path / "COMPLETE").unlink()
    assert store.added_by_newest() == sum(map(len, FILES.values()))


def test_a_run_is_taken_over_only_where_there_is_none(store: Store) -> None:
    taken = store.resume_run("a-run", ("python",), "/", if_none=True)
    assert (store.run, taken.id) == (taken, "a-run")
    assert store.resume_run("another", ("python",), "/", if_none=True) == taken
    store.finish_run(0, "ended")
    assert store.resume_run("another", ("python",), "/", if_none=True) == store.run
    assert store.run is not None and store.run.id == "a-run"
