"""Prune and delete: what goes, what stays, and what an interruption leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_samples import PACK, ForgetfulDisk, add, die_at, facts, fill

import criu_train.store
from criu_train.errors import StoreError, UsageError
from criu_train.store.digest import digest_bytes
from criu_train.store.integrity import verify
from criu_train.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


def ids(store: Store) -> list[str]:
    return [one.id for one in store.snapshots()]


def entries(store: Store) -> list[str]:
    return sorted(path.name for path in store.layout.snapshots.iterdir())


def test_prune_keeps_the_newest_and_tells_what_went(store: Store) -> None:
    made = [add(store).id for _ in range(4)]
    assert store.prune(2) == made[:2]
    assert entries(store) == made[2:]
    assert store.prune(2) == []


def test_prune_counts_only_complete_ones_and_sweeps_what_is_incomplete(store: Store) -> None:
    good = [add(store).id, add(store).id]
    cut_off = store.new_draft("run-1", "timer")
    cut_off.discard("CRIU failed")
    broken = add(store)
    (broken.path / PACK).write_bytes(b"short")
    assert store.prune(1) == [good[0], cut_off.id]
    assert ids(store) == [good[1], broken.id]


def test_prune_removes_a_corrupt_one_once_it_is_older_than_all_that_stay(store: Store) -> None:
    broken = add(store)
    (broken.path / "COMPLETE").write_text("?")
    newer = add(store)
    assert store.prune(5) == [broken.id]
    assert ids(store) == [newer.id]


def test_prune_spares_the_newest_of_each_run_that_could_not_be_gone_on_with_until_another_has_ended_well(
    store: Store,
) -> None:
    first = store.begin_run(("python",), "/")
    lost = [add(store, run=first.id).id for _ in range(3)]
    second = store.begin_run(("python",), "/", instead_of=first)
    assert store.left_by(second) == next(one for one in store.snapshots() if one.id == lost[-1])
    lost_again = [add(store, run=second.id).id for _ in range(3)]
    third = store.begin_run(("python",), "/", instead_of=second)
    assert store.left_by(third) == next(one for one in store.snapshots() if one.id == lost_again[-1])
    made = [add(store, run=third.id).id for _ in range(3)]
    store.prune(2)
    assert ids(store) == [lost[-1], lost_again[-1], *made[1:]]
    store.finish_run(0, "ended")
    store.prune(2)
    assert ids(store) == made[1:]


def test_who_starts_over_on_purpose_keeps_nothing_of_the_run_before(store: Store) -> None:
    add(store, run=store.begin_run(("python",), "/").id)
    made = add(store, run=store.begin_run(("python",), "/").id).id
    store.prune(1)
    assert ids(store) == [made]


def test_prune_to_none_is_refused(store: Store) -> None:
    add(store)
    with pytest.raises(UsageError, match="at least one snapshot has to stay"):
        store.prune(0)


def test_prune_gives_up_abandoned_snapshots_before_those_the_training_can_go_on_from(store: Store) -> None:
    first, second, third, fourth = (add(store).id for _ in range(4))
    store.abandon_after(second)
    assert store.prune(3) == [third]
    assert store.prune(1) == [first, fourth]
    assert ids(store) == [second]


def test_snapshots_of_other_runs_never_drive_out_those_of_the_current_one(store: Store) -> None:
    run = store.begin_run(("python",), "/").id
    foreign = add(store, run="another").id
    mine = [add(store, run=run).id, add(store, run=run).id]
    newer = [add(store, run="another").id, add(store, run="another").id]
    assert store.find("latest").id == mine[1]
    assert store.prune(4) == [foreign]
    assert store.prune(1) == [mine[0], *newer]
    assert store.find("latest").id == mine[1]


def test_where_the_current_run_has_no_snapshot_the_newest_of_any_run_stays(store: Store) -> None:
    first, second = add(store).id, add(store, run="another").id
    store.begin_run(("python",), "/")
    assert store.find("latest").id == second
    assert store.prune(1) == [first]


def test_what_the_current_run_left_behind_goes_before_what_others_can_go_on_from(store: Store) -> None:
    run = store.begin_run(("python",), "/").id
    start, left = add(store, run=run).id, add(store, run=run).id
    foreign = add(store, run="another").id
    store.abandon_after(start)
    assert store.prune(2) == [left]
    store.delete([start], force=True)
    assert store.find("latest").id == foreign


def test_prune_spares_a_draft_that_is_being_written_and_sweeps_it_once_its_writer_died(store: Store) -> None:
    add(store)
    script = (
        "import sys, time; from pathlib import Path; from criu_train.store.store import Store\n"
        "print(Store.open(Path(sys.argv[1])).new_draft('run', 'timer').id, flush=True); time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(criu_train.store.__file__).parent.parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(store.layout.root)], env=environment, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        draft = writer.stdout.readline().strip()
        assert store.prune(1) == []
        assert store.snapshots()[1].reason == "it is being written now"
        with pytest.raises(StoreError, match=f"{draft} is being written now"):
            store.delete([draft])
        writer.kill()
    assert store.snapshots()[1].reason == "its dump was cut off"
    assert store.prune(1) == [draft]


def test_a_draft_completed_while_prune_looked_is_not_swept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = store.new_draft("run-1", "timer")
    fill(draft)
    listed = store.snapshots()
    draft.publish(facts())
    monkeypatch.setattr(store, "snapshots", lambda: listed)
    assert store.prune(1) == []
    monkeypatch.undo()
    assert [one.status for one in store.snapshots()] == ["complete"]


def test_sweep_removes_only_what_dead_dumps_and_deletions_left(store: Store) -> None:
    good = [add(store).id for _ in range(3)]
    dead = store.new_draft("run-1", "timer")
    dead.discard("no")
    alive = store.new_draft("run-1", "timer")
    (store.layout.snapshots / ".trash-20261121T204512Z-000099").mkdir()
    assert store.sweep() == [dead.id]
    assert entries(store) == [*good, alive.id]


def test_delete_removes_those_named_or_none(store: Store) -> None:
    first, second, third = (add(store).id for _ in range(3))
    with pytest.raises(UsageError, match="there is no snapshot 20990101"):
        store.delete([first, "20990101T000000Z-000099"])
    assert ids(store) == [first, second, third]
    store.delete([first, second])
    assert entries(store) == [third]


def test_the_last_snapshot_of_an_unfinished_run_goes_only_by_force(store: Store) -> None:
    run = store.begin_run(("python",), "/").id
    first, second = add(store, run=run).id, add(store, run=run).id
    add(store, run="another")  # is no comfort
    with pytest.raises(StoreError, match=f"{second} is the last snapshot that the unfinished run could go on from"):
        store.delete([first, second])
    store.delete([second])
    with pytest.raises(StoreError, match="is the last snapshot") as caught:
        store.delete([first])
    assert "--force" in caught.value.tip
    store.delete([first], force=True)
    assert [one.manifest.run for one in store.snapshots() if one.manifest] == ["another"]


def test_the_last_snapshot_of_a_finished_run_may_go(store: Store) -> None:
    only = add(store, run=store.begin_run(("python",), "/").id).id
    store.finish_run(0, "ended")
    store.delete([only])
    assert entries(store) == []


def test_a_failed_dump_may_be_deleted_while_a_run_has_no_complete_snapshot(store: Store) -> None:
    store.begin_run(("python",), "/")
    draft = store.new_draft("run-1", "timer")
    draft.discard("no")
    store.delete([draft.id])
    assert entries(store) == []


@pytest.mark.parametrize(("point", "nth"), [("set-aside", 1), ("set-aside", 2), ("before-sweep", 1), ("swept-one", 1)])
def test_a_prune_killed_at_any_point_leaves_the_rest_whole_and_the_next_one_ends_it(
    store: Store, point: str, nth: int
) -> None:
    made = [add(store).id for _ in range(3)]
    die_at(point, store.layout.root, "prune", nth)
    left = store.snapshots()
    assert left[-1].id == made[-1]
    assert [verify(one) for one in left] == [[] for _ in left]
    store.prune(1)
    assert entries(store) == made[-1:]


def test_a_power_cut_at_any_moment_of_a_prune_leaves_only_whole_snapshots(tmp_path: Path) -> None:
    store = Store.create_or_open(tmp_path / "store")
    newest = [add(store).id for _ in range(3)][-1]

    class Disk(ForgetfulDisk):
        def look(self, left_by_the_cut: Path) -> None:
            found = Store.open(left_by_the_cut).snapshots()
            assert found[-1].id == newest
            assert [verify(one) for one in found] == [[] for _ in found]

    disk = Disk(tmp_path / "store", tmp_path / "cut")
    disk.remember_all()
    assert len(Store.open(tmp_path / "store", disk).prune(1)) == 2
    assert disk.outcomes > 12


def test_snapshots_that_share_blobs_by_hard_link_do_not_need_each_other(store: Store) -> None:
    blob = digest_bytes(b"shared")
    draft = store.new_draft("run-1", "timer")
    (draft.files / blob).write_bytes(b"shared")
    first = draft.publish(facts())
    draft = store.new_draft("run-1", "timer")
    (draft.files / blob).hardlink_to(first.files / blob)
    second = draft.publish(facts())
    store.delete([first.id])
    assert verify(second) == []


def test_prune_forgets_the_journals_that_no_snapshot_left_needs(store: Store) -> None:
    for number in (1, 2, 3):
        journal = store.next_journal()
        assert journal.name == f"00000{number}.jsonl"
        journal.touch()
        draft = store.new_draft("run-1", "timer")
        fill(draft)
        draft.publish(facts(journal=journal.name))
    store.prune(2)
    assert sorted(path.name for path in store.layout.journals.iterdir()) == ["000002.jsonl", "000003.jsonl"]
