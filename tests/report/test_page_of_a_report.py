"""The page as a file: its numbers, computed again from events.jsonl; that it needs nothing; that it runs nothing."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from report_samples import dumped, event, identifier, killed_four_times, progress, store_with

from criu_train.report.page import render
from criu_train.report.reading import read_story

ASSETS = Path(__file__).parents[2] / "criu_train" / "report" / "assets"
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}'\""


class Seen(HTMLParser):
    """What a browser would find: elements, what they name, and the numbers."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.numbers: dict[str, str] = {}
        self.cells: list[tuple[str, float]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.names += given
        self.addresses += [given[name] for name in ("src", "href", "action", "data") if name in given]
        if "data-number" in given:
            assert self.numbers.setdefault(given["data-number"], given["data-value"]) == given["data-value"]
        if "data-cell" in given:
            self.cells.append((given["data-cell"], float(given["data-value"])))


def page_of(place: Path, lines: list[Any]) -> str:
    return render(read_story(store_with(place, lines).layout.root, key=None))


def test_the_numbers_on_the_page_are_those_of_the_event_log(tmp_path: Path) -> None:
    page = Seen(page_of(tmp_path, killed_four_times()))

    # From the file itself, by other means than the product's: lives are what lies between restores.
    log = (tmp_path / "store" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in log]
    times = [datetime.fromisoformat(one["at"]).timestamp() for one in events]
    wall_s = times[-1] - times[0]
    dumps = [one for one in events if one["event"] == "dumped"]
    pauses = [one["frozen_time_us"] / 1e6 for one in dumps]
    restores = [number for number, one in enumerate(events) if one["event"] == "restored"]
    down_s, again_s, again_steps = [], [], []
    for number in restores:
        last = max(n for n in range(number) if events[n]["event"] in ("progress", "dumped"))
        snapshot = next(one for one in dumps if one["snapshot"] == events[number]["snapshot"])
        cut = datetime.fromisoformat(snapshot["at"]).timestamp() - snapshot["seconds"]
        down_s.append(times[number] - times[last])
        again_s.append(times[last] - cut - snapshot["frozen_time_us"] / 1e6)
        again_steps.append(max(one["step"] for one in events[:number] if one["event"] == "progress") - snapshot["step"])
    memory, added = (sum(one[name] for one in dumps) for name in ("memory_bytes", "added_bytes"))
    useful_s = wall_s - sum(down_s) - sum(again_s) - sum(pauses)
    expected = {
        "wall_s": wall_s,
        "useful_s": useful_s,
        "useful_share": useful_s / wall_s,
        "interruptions": len(restores),
        "downtime_s": sum(down_s),
        "downtime_share": sum(down_s) / wall_s,
        "lost_s": sum(again_s),
        "lost_share": sum(again_s) / wall_s,
        "lost_steps": sum(again_steps),
        "snapshots": len(dumps),
        "pauses_total_s": sum(pauses),
        "overhead_share": sum(pauses) / wall_s,
        "memory_bytes": memory,
        "added_bytes": added,
        "saved_share": 1 - added / memory,
        "step": max(one["step"] for one in events if one["event"] == "progress"),
        "epoch": max(one["epoch"] for one in events if one["event"] == "progress"),
    }
    assert {name: float(value) for name, value in page.numbers.items()} == pytest.approx(expected)
    assert [value for name, value in page.cells if name == "downtime_s"] == pytest.approx(down_s)
    assert [value for name, value in page.cells if name == "lost_s"] == pytest.approx(again_s)
    assert f"typically {median(pauses) * 1000:.1f} ms" in (text := page_of(tmp_path, killed_four_times()))
    assert f"{max(pauses) * 1000:.1f} ms at most" in text


def test_the_charts_are_drawn_from_the_event_log(tmp_path: Path) -> None:
    page = page_of(tmp_path, killed_four_times())
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert match
    charts = json.loads(match[1])
    assert charts["progress"]["x"] == "Time since the start (minutes)"
    assert charts["progress"]["y"] == charts["metrics"]["x"] == "Step"
    assert [len(stretch[0]) for stretch in charts["progress"]["redone"]] == [11] * 4  # and where each begins
    assert [one["before"] - one["after"] for one in charts["interruptions"]] == [40] * 4
    assert [one["name"] for one in charts["metrics"]["curves"]] == ["loss", "accuracy"]
    assert charts["pauses"]["y"] == "Pause (milliseconds)"
    assert charts["pauses"]["bars"][0] == [1, 210.0, "trial"]
    assert charts["sizes"]["bars"][0] == [1, 801.0, 44.0]


def test_what_a_training_tells_is_text_on_the_page_whatever_it_looks_like(tmp_path: Path) -> None:
    plain = Seen(page_of(tmp_path / "plain", lines := killed_four_times()))
    metrics = {EVIL: 1.0}
    more = [
        event(400, "dump_failed", trigger=EVIL, reason=EVIL, tip=EVIL, details=None),
        event(401, "interrupted", cause=EVIL),
        event(402, "restore", attempts=[{"snapshot": EVIL, "reason": EVIL, "tip": None}]),
        event(402, "restored", snapshot=EVIL, step=1),
        progress(404, 1, **metrics),
        dumped(410, 11, 2, trigger=EVIL, metrics=metrics, snapshot=EVIL),
        progress(412, 3, **metrics),
    ]
    lines = [{**line, "command": [EVIL]} if line["event"] == "started" else line for line in lines]
    lines = [{**line, "run": EVIL} for line in (*lines, *more)]
    page = page_of(tmp_path / "evil", lines)
    evil = Seen(page)
    assert page.count("alert(1)") > 5
    assert evil.tags.count("script") == plain.tags.count("script") == 3
    assert "img" not in evil.tags
    assert not [name for name in evil.names if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page


def test_nothing_but_its_own_scripts_may_run_and_nothing_may_be_loaded(tmp_path: Path) -> None:
    page = page_of(tmp_path, killed_four_times())
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    hashes = [b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    assert policy[1] == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    assert Seen(page).addresses == ["data:,"]
    assert not re.search(r"@import|url\(", page)


def test_what_the_page_carries_along_is_what_was_published_and_comes_with_its_licence(tmp_path: Path) -> None:
    vendored = json.loads((ASSETS / "vendored.json").read_text())
    for name, one in vendored["files"].items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == one["sha256"], name
    assert f"(v{vendored['version']})" in (ASSETS / "uPlot.iife.min.js").read_text()[:100]
    assert (ASSETS / "uPlot.LICENSE").read_text() in page_of(tmp_path, killed_four_times())


def test_a_run_of_months_makes_a_page_that_opens(tmp_path: Path) -> None:
    names = [f"layer{number}/loss" for number in range(40)]
    lines: list[Any] = [event(0, "started", command=["x"], reason="")]
    for number in range(8000):
        lines.append(progress(300.0 * number, number * 100, **dict.fromkeys(names, 1 / (1 + number))))
        if number % 8 == 0:
            lines.append(dumped(300.0 * number + 5, number // 8 + 1, number * 100))
    page = page_of(tmp_path, lines)
    assert len(page) < 8_000_000
    assert "Time since the start (days)" in page
    assert page.count("<tr>") > 1000
    assert identifier(1000) in page
