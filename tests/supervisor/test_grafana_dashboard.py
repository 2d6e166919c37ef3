"""examples/grafana-dashboard.json: its structure, and that it asks for nothing that we don't tell."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import promql_parser
import pytest
from harness import ROOT

from criu_train.supervisor.metrics import TABLE, Durations

BOARD: dict[str, Any] = json.loads((ROOT / "examples" / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
QUERIES = [
    *(target["expr"] for panel in PANELS for target in panel["targets"]),
    *(annotation["expr"] for annotation in BOARD["annotations"]["list"]),
]
TOLD = {
    name
    for row in TABLE
    for name in (
        [f"{row.name}_{part}" for part in ("bucket", "sum", "count")] if isinstance(row, Durations) else [row.name]
    )
}


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_can_be_read_and_asks_for_metrics_of_ours(query: str) -> None:
    promql_parser.parse(query.replace("$__interval", "30s").replace("$store", "/work/.criu-train"))
    asked = set(re.findall(r"\bcriu_train_\w+", query))
    assert asked and asked <= TOLD
    # Of one training only, else those of several are shown as one.
    assert query.count('{store="$store"}') == len(re.findall(r"\bcriu_train_\w+", query))


def test_every_panel_has_a_place_of_its_own_and_asks_the_chosen_source() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS) == len({panel["title"] for panel in PANELS})
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEF")[: len(panel["targets"])]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_what_its_queries_leave_open_can_be_chosen() -> None:
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    assert variables == {"datasource", "store"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD))) - {"__interval"} == variables
    assert BOARD["schemaVersion"] >= 36 and BOARD["uid"] and BOARD["title"]
