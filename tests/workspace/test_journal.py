"""Reading journals: torn ones, those of an earlier boot, and who is told to have done what."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from criu_train.workspace import journal
from criu_train.workspace.journal import JournalReader, Journals, gather

SECOND = 1_000_000_000


def write_journal(path: Path, *, at: int, boot: str, seen: int, records: tuple[dict[str, object], ...] = ()) -> None:
    lines = [{"what": ["start"], "at": at, "boot": boot, "watched": True}, *records]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(path, ns=(seen, seen))


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "000001.jsonl"
    write_journal(
        path, at=1, boot=journal.boot_id(), seen=2, records=({"who": "ours", "what": ["make"], "path": "/a"},)
    )
    with path.open("a") as file:
        file.write('{"who":"ours","what":["make"],"pa')
    assert gather(Journals((path,), 0), 0).flags.keys() == {"/a"}


def test_a_follower_waits_for_the_rest_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "000001.jsonl"
    reader = JournalReader(path)
    assert list(reader.news()) == []
    line = json.dumps({"who": "ours", "what": ["make"], "path": "/a"}) + "\n"
    path.write_text(line[:9])
    assert list(reader.news()) == []
    path.write_text(line)
    assert [record["path"] for record in reader.news()] == ["/a"]
    assert list(reader.news()) == []


def test_a_cell_counts_as_alive_until_a_second_after_its_last_sign_of_life(tmp_path: Path) -> None:
    now = time.time_ns()
    write_journal(tmp_path / "000001.jsonl", at=now - 60 * SECOND, boot=journal.boot_id(), seen=now - 30 * SECOND)
    write_journal(tmp_path / "000002.jsonl", at=now - 20 * SECOND, boot=journal.boot_id(), seen=now - 10 * SECOND)
    evidence = gather(Journals.since(tmp_path, "000001.jsonl", 0), cut_ns=now - 50 * SECOND)
    alive = [seconds for seconds in range(70) if evidence.lived(now - seconds * SECOND)]
    assert alive == [9, *range(10, 21), 29, *range(30, 51)]


def test_after_a_reboot_a_cell_counts_as_alive_a_little_longer_but_not_into_the_new_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    write_journal(tmp_path / "000001.jsonl", at=now - 900 * SECOND, boot="an earlier one", seen=now - 600 * SECOND)
    for booted, end in ((now - 590 * SECOND, 590), (now - 100 * SECOND, 480)):
        monkeypatch.setattr(journal, "_boot_time_ns", lambda booted=booted: booted)
        evidence = gather(Journals.since(tmp_path, "000001.jsonl", 0), cut_ns=now - 800 * SECOND)
        assert evidence.lived(now - end * SECOND) and not evidence.lived(now - (end - 1) * SECOND)


@pytest.mark.parametrize(
    ("records", "path", "verdict"),
    [
        ([("ours", ["write"], "/w/a")], "/w/a", "ours"),
        ([("other", ["write"], "/w/a")], "/w/a", "other"),
        ([("other", ["write"], "/w/a"), ("ours", ["write"], "/w/a")], "/w/a", "ours"),
        ([("ours", ["gone"], "/w/d")], "/w/d/x", "ours"),
        ([("other", ["make"], "/w/d")], "/w/d/x", "other"),
        ([("other", ["make"], "/w/d"), ("ours", ["make"], "/w/d/x")], "/w/d/x", "ours"),
        ([("other", ["write"], "/w/d")], "/w/d/x", "unknown"),
        ([("ours", ["write"], "/w/da")], "/w/d", "unknown"),
    ],
)
def test_who_did_it_is_told_by_the_path_itself_else_by_the_directory_that_came_or_went(
    tmp_path: Path, records: list[tuple[str, list[str], str]], path: str, verdict: str
) -> None:
    file = tmp_path / "000001.jsonl"
    lines = tuple({"who": who, "what": what, "path": about} for who, what, about in records)
    write_journal(file, at=1, boot=journal.boot_id(), seen=2, records=lines)
    assert gather(Journals((file,), 0), 0).verdict(path, changed_ns=time.time_ns()) == verdict
