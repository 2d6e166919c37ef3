"""``criu-train report`` as a user calls it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from harness import Told, tell
from report_samples import RUN, event, killed_four_times, store_with

from criu_train.store.store import Store


def report(place: Path, *arguments: str) -> Told:
    return tell("--store", str(place / "store"), "report", *arguments, cwd=place)


def test_a_page_is_written_with_the_rights_of_an_ordinary_file(tmp_path: Path) -> None:
    store_with(tmp_path, ['{"torn": ', *killed_four_times(), "\x00\x00"])
    told = report(tmp_path)
    assert told.code == 0, told.text
    assert told.out.startswith("report.html: ")
    assert "It was interrupted" in (tmp_path / "report.html").read_text()
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o644
    assert not list(tmp_path.glob(".*"))


def test_numbers_are_printed_for_programs_and_no_page_is_written(tmp_path: Path) -> None:
    store_with(tmp_path, killed_four_times())
    told = report(tmp_path, "--json").json()
    assert (told["run"], told["state"], told["exit_code"]) == (RUN, "finished", 0)
    assert told["numbers"]["interruptions"] == len(told["interruptions"]) == 4
    assert told["numbers"]["snapshots"] == len(told["snapshots"]) == 10
    assert told["interruptions"][0]["lost_steps"] == 40
    assert not (tmp_path / "report.html").exists()


def test_an_earlier_run_is_told_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    later = {**event(9000, "started", command=["other"], reason=""), "run": "20261123T000000Z-00ff00"}
    store_with(tmp_path, [*killed_four_times(), later])
    assert report(tmp_path, "--json").json()["command"] == ["other"]
    assert report(tmp_path, "--json", "--run", "20261122").json()["run"] == RUN
    told = report(tmp_path, "--run", "1999")
    assert (told.code, told.out) == (2, "")
    assert told.err.splitlines() == [
        "error: there is no run 1999",
        f"tip: the newest are: {RUN}, 20261123T000000Z-00ff00",
    ]


def test_a_store_in_which_nothing_happened_is_told_as_such(tmp_path: Path) -> None:
    Store.create_or_open(tmp_path / "store")
    told = report(tmp_path)
    assert told.code == 125
    assert told.err.startswith("error: nothing has happened in ")
    assert "\ntip: `criu-train run -- COMMAND` writes it" in told.err
    told = tell("--store", "elsewhere", "report", cwd=tmp_path)
    assert (told.code, told.err.count("\n")) == (125, 2)


def test_a_place_where_no_page_can_be_is_told(tmp_path: Path) -> None:
    store_with(tmp_path, killed_four_times())
    told = report(tmp_path, "-o", "missing/report.html")
    assert (told.code, told.err) == (
        2,
        "error: there is no directory missing\ntip: make it first, or name another with --output\n",
    )
    assert report(tmp_path, "-o", "/dev/full").code == 125
    assert "<!doctype html>" in report(tmp_path, "-o", "/dev/stdout").out


def test_half_a_character_in_a_name_is_no_obstacle(tmp_path: Path) -> None:
    lines = [json.dumps(line).replace("accuracy", "\\ud800") for line in killed_four_times()]
    store_with(tmp_path, lines)
    assert report(tmp_path).code == 0
