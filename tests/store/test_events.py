"""The log of events."""

from __future__ import annotations

from pathlib import Path

from store_samples import mode

from criu_train.store.events import EventLog


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
