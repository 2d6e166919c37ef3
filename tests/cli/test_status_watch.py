"""``criu-train status --watch`` on terminals of all widths, and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from harness import criu_train
from store_samples import add
from terminals import Terminal, surroundings

from criu_train.cell import processes
from criu_train.cli.overview import Looker, in_words
from criu_train.cli.sparkline import sparkline
from criu_train.store.event_schema import KINDS
from criu_train.store.event_tail import EventTail
from criu_train.store.events import EventLog
from criu_train.store.store import Store
from criu_train.supervisor.state import State, boot_id

LOOK = criu_train("status", "--watch")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Of a run that seems to go on, supervised by the test itself."""
    store = Store.create_or_open(tmp_path / ".criu-train")
    store.begin_run(("python", "train.py"), str(tmp_path))
    for pause in (100_000, 300_000, 200_000):
        add(store, frozen_time_us=pause)
    events = EventLog(store.layout.events, "run-1")
    events.append("started", command=["python"], reason="the store has no run yet")
    events.append("progress", step=41, epoch=1, metrics={"loss": 0.5})
    say(store, "running")
    store.layout.output_log.write_text("step 42 loss 0.25\n")
    return store


def say(store: Store, state: str, **more: object) -> None:
    me = os.getpid()
    known = State(
        supervisor_pid=me, supervisor_started=processes.start_time(me), boot_id=boot_id(), run="run-1",
        next_dump_at="2999-01-01T00:00:00Z",
    )  # fmt: skip
    text = json.dumps(asdict(known) | {"state": state, **more})
    temporary = store.layout.supervisor.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(store.layout.supervisor)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_it_fits_the_terminal_follows_the_run_and_ends_with_ctrl_c(store: Store, tmp_path: Path, columns: int) -> None:
    with Terminal(LOOK, columns=columns, env=surroundings(), cwd=tmp_path) as terminal:
        terminal.read_until(r"(?s)running.*42.*0\.25.*in \d+d.*started")
        for one in store.snapshots()[-1:]:
            assert one.id in terminal.text
        assert "▃█▆  200.0 ms" in terminal.text
        EventLog(store.layout.events).append(
            "dumped", snapshot="20261122T000000Z-000017", trigger="timer", frozen_time_us=5_000_000, added_bytes=2048,
            memory_bytes=1,
        )  # fmt: skip
        say(store, "dumping")
        with store.layout.output_log.open("a") as output:
            output.write("step 57 loss 0.125\n")
        terminal.read_until(r"(?s)dumping.*57.*now.*20261122T000000Z-000017.*█  5\.00 s.*snapshot 17 \(timer\)")
        assert max(map(len, terminal.lines)) <= columns
        terminal.type("\x03")
        assert terminal.read_all() == 0
    assert "Traceback" not in terminal.text


def test_it_ends_with_a_sentence_when_the_run_is_over(store: Store, tmp_path: Path) -> None:
    with Terminal(LOOK, env=surroundings(), cwd=tmp_path) as terminal:
        terminal.read_until("running")
        say(store, "finished", exit_code=3)
        assert terminal.read_all() == 0
    assert terminal.lines[-1] == "the run is over: it ended with exit code 3"


def test_where_both_are_gone_it_says_how_to_go_on(store: Store, tmp_path: Path) -> None:
    say(store, "running", supervisor_pid=1 << 22, supervisor_started=1.0)
    with Terminal(LOOK, columns=200, env=surroundings(), cwd=tmp_path) as terminal:
        assert terminal.read_all() == 0
    assert "the same `criu-train run` goes on" in terminal.lines[-1]


@pytest.mark.parametrize("how", ["pipe", "dumb"])
def test_without_a_terminal_that_can_redraw_it_tells_changes_line_by_line(
    store: Store, tmp_path: Path, how: str
) -> None:
    if how == "dumb":
        with Terminal(LOOK, env=surroundings(TERM="dumb"), cwd=tmp_path) as terminal:
            terminal.read_until("state: running")
            say(store, "finished", exit_code=0)
            assert terminal.read_all() == 0
        out = terminal.raw.replace("\r\n", "\n")
    else:
        with subprocess.Popen(LOOK, stdout=subprocess.PIPE, text=True, env=surroundings(), cwd=tmp_path) as process:
            time.sleep(2.0)
            EventLog(store.layout.events).append("died", reason="it was killed", exit_code=137, backoff_s=1.0)
            time.sleep(1.5)
            process.send_signal(signal.SIGINT)
            out = process.communicate(timeout=20)[0]
            assert process.returncode == 0
        assert "died: it was killed" in out
    assert "\x1b" not in out
    assert "state: running\nstep 42, epoch 1, loss 0.25\n" in out
    assert out.count("started from the beginning") == 1


def test_a_step_of_the_output_that_is_behind_counts_something_else(store: Store) -> None:
    EventLog(store.layout.events).append("progress", step=1200, epoch=None, metrics={})  # by a hook, say
    told = Looker(store).look().told
    assert (told.step, told.epoch, told.metrics["loss"]) == (1200, 1, 0.5)


def test_whatever_is_in_the_log_is_looked_at(store: Store) -> None:
    with store.layout.events.open("ab") as log:
        log.write(b'\xff\n[1]\n{"event": 7}\n{"event": "dumped"}\n{"event": "progress", "step": "x"}\n')
        log.write(b'{"event": "from_the_future", "at": 5}\n{"event": "died", "reason": "\\u001b[31m\\nred"}\n{"torn')
    seen = Looker(store).look()
    assert [one.text for one in seen.happened][1:] == ["dumped", "from the future", "died: [31m red"]


def test_of_a_log_only_the_end_is_read_and_then_only_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for number in range(5000):
        log.append("progress", step=number, epoch=None, metrics={})
    tail = EventTail(path)
    first = tail.new()
    assert first[-1]["step"] == 4999
    assert len(first) < 4000
    assert tail.new() == []
    log.append("finished", exit_code=0)
    with path.open("ab") as file:
        file.write(b'{"at": "x", "event": "sto')
        file.flush()
        assert [one["event"] for one in tail.new()] == ["finished"]
        file.write(b'pped"}\n')
    assert [one["event"] for one in tail.new()] == ["stopped"]
    path.write_bytes(b'{"event": "started"}\n')
    assert [one["event"] for one in tail.new()] == ["started"]


def test_heights_are_shares_of_the_largest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 80) == "▁▂▃▄▅▆▇█"
    assert sparkline([7, 0, 7], 2) == "▁█"
    assert sparkline([], 5) == sparkline([1], 0) == ""
    assert sparkline([0, 0], 5) == "▁▁"


def test_events_have_words_without_line_breaks() -> None:
    assert in_words({"event": "restored", "snapshot": "20261122T000000Z-000017"}) == "restored from snapshot 17"
    assert in_words({"event": "interrupted", "cause": "power\ncut"}) == "was interrupted: power cut"
    assert in_words({"event": "interrupted"}) == "interrupted"


def test_every_event_has_words_of_its_own() -> None:
    samples = {"string": "x", "integer": 1, "number": 1.5, "boolean": True, "strings": ["x"], "attempts": []}
    for kind in KINDS:
        if kind.name != "progress":
            event = {"event": kind.name} | {field.name: samples.get(field.type, {}) for field in kind.fields}
            assert in_words(event) != kind.name.replace("_", " "), kind.name


def test_steps_that_only_the_supervisor_knows_have_a_speed_too(store: Store) -> None:
    looker, log = Looker(store), EventLog(store.layout.events)
    for step in (1000, 1100):
        log.append("progress", step=step, epoch=None, metrics={})
        seen = looker.look()
        time.sleep(0.05)
    assert seen.told.step == 1100
    assert seen.steps_per_second is not None and seen.steps_per_second > 0
