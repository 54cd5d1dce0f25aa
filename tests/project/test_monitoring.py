"""Alert rules and dashboard: queries that parse, over metrics and labels that workers have."""

import json
import re
from typing import Any

import promql_parser
import pytest
import yaml

from tests.paths import ROOT
from tracker.stream.metrics import Metrics

RULES = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
OF_PROMETHEUS = {"up": {"job", "instance"}}
GIVEN = {"job", "instance", "le"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    found = [rule["expr"] for rule in ALERTS]
    found += [target["expr"] for panel in panels() for target in panel["targets"]]
    found += [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    return [query.replace("$__rate_interval", "5m") for query in found]


def known_metrics() -> dict[str, set[str]]:
    """Return the labels of each series that a worker has."""
    labels: dict[str, set[str]] = dict(OF_PROMETHEUS)
    for collector in vars(Metrics()).values():
        for family in collector.describe() if hasattr(collector, "describe") else ():
            own = set(getattr(collector, "_labelnames", ())) | GIVEN
            ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
            for end in ends.get(family.type, ("",)):
                labels[family.name + end] = own
    labels["tracker_catalogue_coverage_ratio"] = GIVEN
    for name in ("tracker_latency_seconds", "tracker_interest_drift"):
        labels |= {f"{name}{end}": {"partition"} | GIVEN for end in ("_bucket", "_sum", "_count")}
    return labels


def selectors(node: Any) -> list[Any]:
    """Return all selectors of series in a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    found: list[Any] = []
    for name in ("lhs", "rhs", "expr", "args", "vector_selector"):
        part = getattr(node, name, None)
        for one in part if isinstance(part, list) else [part]:
            if one is not None:
                found += selectors(one)
    return found


@pytest.mark.parametrize("query", queries())
def test_a_query_names_series_and_labels_that_exist(query: str) -> None:
    known = known_metrics()
    found = selectors(promql_parser.parse(query))
    assert found
    for selector in found:
        assert selector.name in known, query
        used = {matcher.name for matcher in selector.matchers.matchers}
        assert used <= known[selector.name], query
    grouped = re.findall(r"by \(([^)]*)\)", query)
    for label in {label.strip() for group in grouped for label in group.split(",")}:
        assert any(label in known[selector.name] for selector in found), query


def test_each_alert_has_its_section_in_the_runbook() -> None:
    page = (ROOT / "docs/how-to/runbook.md").read_text()
    sections = re.findall(r"^## (\w+)$", page, re.MULTILINE)
    assert sections == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        anchor = rule["alert"].lower()
        assert rule["annotations"]["runbook"] == f"docs/how-to/runbook.md#{anchor}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "warn")


def test_panels_have_titles_and_places_of_their_own() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert panel["title"]
        assert at["x"] + at["w"] <= 24
        assert not cells & places, panel["title"]
        places |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
