"""``criu-train snapshot list``: for programs and for people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from snapshot_calls import KEYS, Call
from store_samples import FILES, PACK, add, facts, fill, many

import criu_train
from criu_train.cli import console as module
from criu_train.cli.snapshot_table import print_snapshots
from criu_train.errors import StoreError
from criu_train.store.store import Store


def test_list_json_has_exactly_the_documented_keys_newest_last(store: Store, call: Call) -> None:
    first, second = add(store), add(store, trigger="signal", step=12, metrics={"loss": 0.5})
    store.mark_proven(second.id, True)
    store.new_draft("run-1", "timer").discard("CRIU failed")
    result = call("list", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert [list(one) for one in told] == [KEYS] * 3
    assert [one["id"] for one in told][:2] == [first.id, second.id]
    assert told[1] == {
        "id": second.id,
        "run": "run-1",
        "created_at": second.created_at,
        "status": "complete",
        "proven": True,
        "abandoned": False,
        "trigger": "signal",
        "step": 12,
        "metrics": {"loss": 0.5},
        "frozen_time_us": 912_345,
        "memory_bytes": 3 << 30,
        "stored_bytes": sum(map(len, FILES.values())),
        "added_bytes": sum(map(len, FILES.values())),
        "tasks": 3,
        "command": ["python", "train.py"],
    }
    known = {"id", "created_at", "status", "abandoned"}
    assert {key for key, value in told[2].items() if value is None} == set(KEYS) - known
    assert (told[2]["status"], told[2]["created_at"][-1]) == ("incomplete", "Z")


def test_list_json_without_a_store_is_an_empty_list_and_makes_none(tmp_path: Path, call: Call) -> None:
    result = call("list", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert not (tmp_path / "store").exists()


def test_list_without_a_store_says_how_to_get_one(call: Call) -> None:
    result = call("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "criu-train run -- COMMAND" in result.stderr


def test_list_of_an_empty_store_says_so(store: Store, call: Call) -> None:
    assert "has no snapshots yet" in call("list").stderr


def test_list_of_a_store_that_others_can_write_to_is_refused(store: Store, call: Call) -> None:
    store.layout.root.chmod(0o777)
    with pytest.raises(StoreError, match="can be written to by other users"):
        call("list")


def test_list_shows_status_trigger_pause_and_sizes_in_words(store: Store, call: Call) -> None:
    good, broken = add(store, trigger="preempt"), add(store)
    (broken.path / PACK).write_bytes(b"[bold]")
    store.new_draft("run-1", "timer").discard("CRIU failed [red]: no room")
    lines = call("list").stdout.splitlines()
    assert lines[0].split() == ["ID", "Time", "Status", "Trigger", "Pause", "Memory", "Stored", "Added"]
    assert lines[1].startswith(good.id)
    for word in ("just now", "Completed", "preempt", "912.3 ms", "3.0 GiB", "68.4 KiB"):
        assert word in lines[1]
    assert "Corrupt" in lines[2] and "Incomplete" in lines[3]
    assert lines[-2].endswith(f"Corrupt: {PACK} has 6 bytes instead of 70000")
    assert lines[-1].endswith("Incomplete: CRIU failed [red]: no room")


def test_list_tells_what_a_snapshot_holds_and_what_it_added_to_the_disk(store: Store, call: Call) -> None:
    first = add(store)
    draft = store.new_draft("run-1", "timer")
    fill(draft, FILES | {"images/more.img": b"m" * 2048})
    (draft.path / PACK).unlink()
    (draft.path / PACK).hardlink_to(first.path / PACK)
    second = draft.publish(facts())
    told = json.loads(call("list", "--json").stdout)[1]
    stored = sum(map(len, FILES.values())) + 2048
    assert (told["stored_bytes"], told["added_bytes"]) == (stored, stored - len(FILES[PACK]))
    assert call("list").stdout.splitlines()[2].split()[-4:] == ["70.4", "KiB", "2.0", "KiB"]
    store.delete([first.id])
    assert json.loads(call("show", second.id, "--json").stdout)["added_bytes"] == told["added_bytes"]


def test_a_file_gone_from_one_of_the_newest_snapshots_shows_in_the_list(store: Store, call: Call) -> None:
    many(store, 30)
    newest, old = store.snapshots()[-1], store.snapshots()[3]
    for one in (newest, old):
        (one.path / "pages.index").unlink()
    told = {one["id"]: one["status"] for one in json.loads(call("list", "--json").stdout)}
    assert told[newest.id] == "corrupt"
    assert told[old.id] == "complete"  # known only to those who look closer
    assert call("verify", old.id).exit_code == 1


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_thousand_snapshots_are_listed_within_half_a_second(
    store: Store, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The whole command, the start of Python included."""
    many(store, 1000)
    product = str(Path(criu_train.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": product, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    argv = [sys.executable, "-m", "criu_train", "--store", str(store.layout.root), "snapshot", "list", *arguments]
    took = []
    for _ in range(5):  # the best of five: other work on the machine can only slow it down
        before = os.times()
        told = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
        after = os.times()
        took.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert len(json.loads(told) if arguments else told.splitlines()[1:]) == 1000
    assert min(took) < 0.5


def test_list_shows_steps_only_where_there_are_some(store: Store, call: Call) -> None:
    add(store)
    assert "Step" not in call("list").stdout
    add(store, step=12_000)
    assert "Step" in call("list").stdout and "12,000" in call("list").stdout


def test_list_tells_which_snapshots_were_abandoned(store: Store, call: Call) -> None:
    first, second = add(store), add(store)
    store.abandon_after(first.id)
    assert f"{second.id}  abandoned: the training went on from an older snapshot" in call("list").stdout


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40, 25, 10])
def test_the_table_never_breaks_a_line_and_keeps_the_id_however_narrow_the_terminal(store: Store, width: int) -> None:
    one = add(store, step=3)
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        print_snapshots([one], console)
    lines = capture.get().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    assert lines[1].startswith(one.id[: min(width, len(one.id)) - 1])
    assert ("Completed" in lines[1]) == (width >= 40)


def test_what_is_no_terminal_gets_every_column(store: Store, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, step=3)
    monkeypatch.setattr(module, "console", Console(width=30))
    header, row = call("list").stdout.splitlines()
    assert header.split() == ["ID", "Time", "Status", "Trigger", "Step", "Pause", "Memory", "Stored", "Added"]
    assert row.rstrip().endswith("KiB")
