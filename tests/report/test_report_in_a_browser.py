"""The page as people see it: in Chromium, wide and narrow, light and dark, on screen and on paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from report_samples import event, killed_four_times, progress, store_with

from criu_train.report.page import render
from criu_train.report.reading import read_story

pytestmark = [pytest.mark.slow]

# Of every text that can be seen: its contrast to what is painted behind it, as WCAG 2.2 computes it.
CONTRASTS = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = (color) => rgb(color).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, style")) continue;
    let under = element;
    while (under && (rgb(getComputedStyle(under).backgroundColor)[3] ?? 1) < 1) under = under.parentElement;
    const behind = under ? getComputedStyle(under).backgroundColor : "rgb(255, 255, 255)";
    const [a, b] = [light(getComputedStyle(element).color), light(behind)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""
AXES = """() => [...document.querySelectorAll(".chart")].map((one) => ({
  id: one.closest("figure").id, labels: one.chart.axes.map((axis) => axis.label), width: one.chart.width,
  drawn: new Set(one.querySelector("canvas").getContext("2d")
    .getImageData(0, 0, 600, 400).data.filter((_, at) => at % 4 === 3)).size > 1,
}))"""


class Visit:
    """One page in one window, and what it complained of or asked for."""

    def __init__(self, browser: Any, page: Path, width: int, scheme: str) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = page.as_uri()
        self.page.goto(self.address)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        # Root has no sandbox, nor have containers.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def page_of(place: Path, lines: Sequence[Any]) -> Path:
    page = place / "report.html"
    page.write_text(render(read_story(store_with(place, lines).layout.root, key=None)))
    return page


@pytest.mark.parametrize("width", [360, 768, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_is_labelled_can_be_read_and_asks_for_nothing(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    visit = Visit(browser, page_of(tmp_path, killed_four_times()), width, scheme)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    charts = visit.page.evaluate(AXES)
    assert [chart["id"] for chart in charts] == ["progress", "metrics", "pauses", "sizes"]
    assert [chart["labels"] for chart in charts] == [
        ["Time since the start (minutes)", "Step"],
        ["Step", "loss"],
        ["Snapshot (number)", "Pause (milliseconds)"],
        ["Snapshot (number)", "Size (MiB)"],
    ]
    assert all(chart["drawn"] and 200 < chart["width"] <= width for chart in charts)
    lowest = "(id) => document.querySelector(`#${id} .chart`).chart.scales.y.min"
    assert [visit.page.evaluate(lowest, name) for name in ("pauses", "sizes")] == [0, 0]
    assert visit.page.evaluate("document.documentElement.dataset.theme") == scheme
    faint = [(round(contrast, 2), text) for contrast, text in visit.page.evaluate(CONTRASTS) if contrast < 4.5]
    assert not faint
    assert visit.requests == [visit.address]
    assert visit.complaints == []


def test_a_reader_chooses_the_theme_and_the_metric_and_looks_closer(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, page_of(tmp_path, killed_four_times()), 1440, "light")
    page = visit.page
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.inner_text("#theme") == "Light"
    page.select_option("#metric", label="accuracy")
    assert page.evaluate("document.querySelector('#metrics .chart').chart.axes[1].label") == "accuracy"
    page.hover("#progress .u-over", position={"x": 300, "y": 100})
    assert "Step: " in page.inner_text("#progress .tip")
    down = page.evaluate("document.querySelector('#progress .chart').chart.valToPos(62.5 / 60, 'x')")
    page.hover("#progress .u-over", position={"x": down, "y": 100})
    assert page.inner_text("#progress .tip") == "Interruption 1: 5.00 s down, 20 s done again"
    page.set_viewport_size({"width": 500, "height": 900})
    page.wait_for_function("document.querySelector('#progress .chart').chart.width < 500")
    assert page.evaluate("document.documentElement.scrollWidth") == 500
    assert visit.complaints == []


def test_on_paper_the_page_is_light(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, page_of(tmp_path, killed_four_times()), 1440, "dark")
    visit.page.evaluate(
        "window.seen = [];"
        "addEventListener('beforeprint', () => window.seen.push(document.documentElement.dataset.theme))"
    )
    assert visit.page.pdf(format="A4").startswith(b"%PDF")
    assert visit.page.evaluate("window.seen")[0] == "light"
    assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert visit.complaints == []


@pytest.mark.parametrize(
    "lines",
    [
        [event(0, "started", command=["x"], reason="")],
        [event(0, "started", command=["x" * 300], reason=""), progress(3, 7, **{"l" * 100: 1.0})],
        [event(0, "started", command=["x"], reason=""), progress(3, 7), progress(3, 7), progress(5, 7)],
    ],
    ids=["begun", "one-sample", "no-time-no-steps"],
)
def test_a_run_of_which_little_is_known_has_a_page_too(browser: Any, tmp_path: Path, lines: Sequence[Any]) -> None:
    visit = Visit(browser, page_of(tmp_path, lines), 390, "light")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
    assert visit.complaints == []
