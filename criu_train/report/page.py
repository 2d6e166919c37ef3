"""The page of a report: one file that needs nothing else, no network either."""

from __future__ import annotations

import hashlib
import time
from base64 import b64encode
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from criu_train import __version__
from criu_train.report import words
from criu_train.report.charts import chart_data, in_order, number_of, triggers
from criu_train.report.story import Story
from criu_train.report.totals import add_up

_ASSETS = files("criu_train.report") / "assets"


def render(story: Story) -> str:
    """The page as HTML. What the training and its snapshots told is text in it, whatever it looks like."""
    scripts = [_asset("uPlot.iife.min.js"), _asset("report.js")]
    totals = add_up(story)
    restored = [one.snapshot for one in story.interruptions]
    return _template().render(
        story=story,
        numbers=words.numbers(totals),
        totals=totals,
        triggers=triggers(story),
        charts=chart_data(story),
        number_of=number_of,
        restores={one.id: restored.count(one.id) for one in story.snapshots},
        # The table of snapshots has room for one.
        metric_names=in_order(dict.fromkeys(name for one in story.snapshots for name in one.told.metrics))[:1],
        scripts=scripts,
        licence=_asset("uPlot.LICENSE"),
        styles=[_asset("uPlot.min.css"), _asset("report.css")],
        # Nothing but these two runs or is loaded, whatever else might get into the page.
        script_hashes=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        version=__version__,
        made_at=time.time(),
    )


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(_asset), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        name: getattr(words, name) for name in ("command", "duration", "size", "count", "metric", "moment", "elapsed")
    }
    return environment.get_template("page.html")


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return b64encode(hashlib.sha256(script.encode()).digest()).decode()
