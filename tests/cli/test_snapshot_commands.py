"""``criu-train snapshot``, as typed."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import click
import pytest
from snapshot_calls import KEYS, Call, run
from store_samples import FILES, PACK, add, take

from criu_train.cli.snapshot import snapshot as group
from criu_train.errors import StoreError, UsageError
from criu_train.store.store import Store


def test_show_tells_the_facts_of_the_manifest(store: Store, call: Call) -> None:
    one = add(
        store, step=7, metrics={"loss": 0.125}, notes=("not saved: /data/[big]",), command=("python", "my train.py")
    )
    told = call("show", "latest").stdout
    for fact in (
        one.id, "Completed", "timer", "run-1", "python 'my train.py'", "/home/me/job", "loss 0.125", "912.3 ms",
        "3.0 GiB in 3 tasks", "4.2.1", "6.18.0", "A Processor (x86_64)", "not saved: /data/[big]", str(one.path),
    ):  # fmt: skip
        assert fact in told.replace("\n           ", ""), fact


def test_show_json_has_the_whole_manifest(store: Store, call: Call) -> None:
    one = add(store)
    told = json.loads(call("show", "1", "--json").stdout)
    assert list(told) == [*KEYS, "reason", "path", "manifest"]
    assert told["manifest"] == json.loads((one.path / "manifest.json").read_bytes())
    assert (told["reason"], told["path"]) == (None, str(one.path))


def test_show_of_an_incomplete_one_tells_why(store: Store, call: Call) -> None:
    store.new_draft("run-1", "timer").discard("CRIU was killed")
    assert "CRIU was killed" in call("show", "1").stdout
    told = json.loads(call("show", "1", "--json").stdout)
    assert (told["reason"], told["manifest"]) == ("CRIU was killed", None)


def test_show_of_an_unknown_one_is_refused(store: Store, call: Call) -> None:
    with pytest.raises(UsageError, match="there is no snapshot 'nope'"):
        call("show", "nope")


@pytest.mark.parametrize("command", [("show", "1"), ("verify",), ("delete", "1"), ("prune", "--keep", "1")])
def test_commands_that_need_a_store_are_refused_without_one(call: Call, command: tuple[str, ...]) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        call(*command)


def test_verify_says_of_the_newest_that_every_byte_is_as_it_was_written(store: Store, call: Call) -> None:
    add(store)
    newest = add(store)
    result = call("verify")
    assert result.exit_code == 0
    assert result.stdout == f"{newest.id}  Completed, every byte as it was written\n"


def test_verify_exits_with_1_and_names_what_is_wrong(store: Store, call: Call) -> None:
    good, bad = add(store), add(store)
    data = bytearray(FILES[PACK])
    data[77] ^= 1
    (bad.path / PACK).write_bytes(data)
    result = call("verify", "--all")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{good.id}  Completed, every byte as it was written",
        f"{bad.id}  Corrupt",
        f"  {PACK} has changed: its checksum is not the one in the manifest",
    ]
    told = json.loads(call("verify", "--all", "--json").stdout)
    assert [(one["id"], one["ok"], len(one["problems"])) for one in told] == [(good.id, True, 0), (bad.id, False, 1)]
    assert call("verify", "1").exit_code == 0
    assert call("verify", "2", "--json").exit_code == 1


def test_verify_all_passes_over_a_snapshot_that_is_being_written(store: Store, call: Call) -> None:
    add(store)
    draft = store.new_draft("run-1", "timer")
    result = call("verify", "--all")
    assert result.exit_code == 0 and draft.id not in result.stdout
    assert call("verify", "2").stdout.splitlines() == [f"{draft.id}  Incomplete", "  it is being written now"]


def test_verify_with_ids_and_all_is_refused(store: Store, call: Call) -> None:
    with pytest.raises(UsageError, match="--all and ids don't go together"):
        call("verify", "1", "--all")


def test_delete_removes_and_names_what_it_removed(store: Store, call: Call) -> None:
    first, second, third = add(store), add(store), add(store)
    assert call("delete", "1").stdout == f"deleted {first.id}\n"
    assert json.loads(call("delete", second.id, "2", "--json").stdout) == {"deleted": [second.id]}
    assert [one.id for one in store.snapshots()] == [third.id]


def test_delete_of_the_last_one_of_an_unfinished_run_needs_force(store: Store, call: Call) -> None:
    add(store, run=store.begin_run(("python",), "/").id)
    with pytest.raises(StoreError, match="is the last snapshot that the unfinished run could go on from"):
        call("delete", "latest")
    assert call("delete", "latest", "--force").exit_code == 0
    assert store.snapshots() == []


def test_delete_with_one_unknown_id_removes_nothing(store: Store, call: Call) -> None:
    add(store), add(store)
    with pytest.raises(UsageError, match="there is no snapshot '9'"):
        call("delete", "1", "9")
    assert len(store.snapshots()) == 2


def test_prune_tells_what_went_and_how_many_are_left(store: Store, call: Call) -> None:
    first, second, third = add(store), add(store), add(store)
    assert call("prune", "--keep", "2").stdout.splitlines() == [f"removed {first.id}", "2 left"]
    told = json.loads(call("prune", "--keep", "1", "--json").stdout)
    assert told == {"removed": [second.id], "kept": [third.id]}
    assert call("prune", "--keep", "1").stdout.splitlines() == ["nothing removed", "1 left"]


@pytest.mark.parametrize("arguments", [(), ("--keep", "0"), ("--keep", "-1"), ("--keep", "some")])
def test_prune_needs_a_number_of_at_least_one(store: Store, call: Call, arguments: tuple[str, ...]) -> None:
    assert call("prune", *arguments).exit_code == 2


@pytest.mark.parametrize("command", group.list_commands(click.Context(group)))
def test_every_command_prints_json_for_programs(call: Call, command: str) -> None:
    assert "--json" in call(command, "--help").stdout


def test_a_snapshot_goes_out_to_a_directory_and_comes_in_again(tmp_path: Path) -> None:
    store = Store.create_or_open(tmp_path / "store")
    taken = take(store, tmp_path / "plain")
    call = partial(run, tmp_path / "store")
    there = tmp_path / "there"
    assert call("export", "latest", str(there)).stdout == f"exported {taken.id} to {there}\n"
    told = json.loads(call("import", str(there), "--json").stdout)
    assert [one.id for one in store.snapshots()] == [taken.id, told["id"]]
    told = json.loads(call("export", "2", str(tmp_path / "more"), "--tar", "--json").stdout)
    assert told == {"id": store.snapshots()[1].id, "path": str(tmp_path / "more")}
    assert (tmp_path / "more" / "criu-train" / "checkpoint.tar").exists()
    elsewhere = run(tmp_path / "elsewhere", "import", str(there / ".." / "more"))
    assert elsewhere.stdout == (
        f"imported {Store.open(tmp_path / 'elsewhere').find('latest').id}\n"
        f"go on with `criu-train --store {tmp_path / 'elsewhere'} run -- python train.py` in /home/me/job, "
        "which has to be made first\n"
    )
    with pytest.raises(UsageError, match="is not an empty directory"):
        call("export", "latest", str(there))
    with pytest.raises(UsageError, match="there is no snapshot 'nope'"):
        call("export", "nope", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_an_import_tells_how_to_go_on_where_the_store_has_another_run(tmp_path: Path) -> None:
    there, store = tmp_path / "there", Store.create_or_open(tmp_path / "store")
    take(store, tmp_path / "plain")
    run(tmp_path / "store", "export", "latest", str(there))
    store.begin_run(("another",), "/")
    told = run(tmp_path / "store", "import", str(there)).stdout
    assert f"go on with `criu-train --store {store.layout.root} restore {store.snapshots()[-1].id}`" in told


def test_a_wrong_directory_to_import_from_leaves_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be read: No such file"):
        run(tmp_path / "store", "import", str(tmp_path / "nowhere"))
    assert not (tmp_path / "store").exists()


def test_json_has_no_colours_even_on_a_terminal(store: Store, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "FORCE_COLOR", "1")
    add(store)
    assert "\x1b" not in call("list", "--json").stdout
