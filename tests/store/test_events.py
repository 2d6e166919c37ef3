"""The log of events."""

from __future__ import annotations

import time
from pathlib import Path

from store_samples import mode

from criu_train.store.events import Event, EventLog, time_of


def test_events_come_back_in_order_with_their_fields(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    assert log.read() == []
    assert log.append("started", pid=7)
    assert log.append("dumped", snapshot="x", path=tmp_path)
    first, second = log.read()
    assert (first["event"], first["pid"], first["at"][-1]) == ("started", 7, "Z")
    assert (second["event"], second["path"]) == ("dumped", str(tmp_path))
    assert mode(tmp_path / "events.jsonl") == 0o600


def test_a_line_torn_by_a_power_cut_spoils_no_other(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("one")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"at": "2026-11-21T20:45:12Z", "eve')
    assert [event["event"] for event in log.read()] == ["one"]
    log.append("two")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b"\0\0\0\xff\n7\n")
    log.append("three")
    assert [event["event"] for event in log.read()] == ["one", "two", "three"]


def test_an_event_that_the_disk_refuses_is_lost_and_nothing_else(tmp_path: Path) -> None:
    assert EventLog(tmp_path / "gone" / "events.jsonl").append("started") is False
    assert EventLog(Path("/dev/full")).append("started") is False


def test_each_event_tells_its_run_and_its_time_to_the_millisecond(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("adopted")
    log.run = "a"
    before = time.time()
    log.append("finished")
    first, second = log.read()
    assert (first["run"], second["run"]) == (None, "a")
    told = time_of(second)
    assert told is not None and before - 0.002 <= told <= time.time() + 0.002
    assert len(second["at"]) == len("2026-11-21T20:45:12.345Z")


def test_times_of_older_versions_are_understood_and_others_are_none() -> None:
    assert time_of({"at": "1970-01-01T00:01:00Z"}) == 60.0
    assert time_of({"at": "1970-01-01T00:01:00.250Z"}) == 60.25
    assert [time_of(event) for event in ({}, {"at": 7}, {"at": "soon"})] == [None] * 3


def test_listeners_hear_of_each_event_and_their_mistakes_harm_nobody(tmp_path: Path) -> None:
    log, heard = EventLog(Path("/dev/full")), []

    def mistaken(event: Event) -> None:
        raise RuntimeError(event["event"])

    log.listeners += [mistaken, heard.append]
    assert log.append("died", code=1) is False
    assert [(event["event"], event["code"]) for event in heard] == [("died", 1)]
