"""`tracker top`: rates between two looks, latency by buckets, and movements of interest."""

import json
import urllib.parse
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from tracker.cli.main import cli
from tracker.cli.printing import present_view
from tracker.lookup import top
from tracker.lookup.ask import AskError
from tracker.lookup.top import Present, Series, Top, latency
from tracker.settings import load_settings
from tracker.stream.metrics import Metrics

ANSWERS: dict[str, Any] = {
    "/v1/workers": {
        "artifact": "000002",
        "partitions": [
            {"topic": "t-events", "partition": 1, "lag": 7},
            {"topic": "t-events", "partition": 0, "lag": 3},
        ],
    },
    "/v1/items": {"items": [{"item_id": "tent", "label": "Camping", "count": 4.5}]},
    "/v1/users": {"users": [{"user_id": "ada"}, {"user_id": "gone"}, {"user_id": "new"}]},
    "/v1/users/ada/interests": {
        "interests": [
            {"label": "Running", "strength": 0.9, "change": -0.05},
            {"label": "Baby [new]", "strength": 0.1, "change": 0.1},
        ]
    },
    "/v1/users/new/interests": {"interests": []},
}


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Metrics of a worker that answers."""
    metrics = Metrics()

    def ask(settings: Any, url: Any, path: str, query: Any) -> dict[str, Any]:
        if path not in ANSWERS:
            raise AskError("nothing is known", 404)
        answer: dict[str, Any] = json.loads(json.dumps(ANSWERS[urllib.parse.unquote(path)]))
        return answer

    monkeypatch.setattr(top, "ask", ask)
    monkeypatch.setattr(top, "ask_metrics", lambda *_: metrics.exposition().decode())
    return metrics


def test_rates_are_those_since_the_look_before(metrics: Metrics) -> None:
    now = [10.0]
    watched = Top(load_settings({}), None, lambda: now[0])
    metrics.events.inc(100)
    assert "events/s" not in watched.look().figures
    metrics.events.inc(30)
    metrics.rejected.labels("not_json").inc(1)
    now[0] += 2.0
    present = watched.look()
    assert present.figures["events/s"] == "15.0"
    assert present.figures["rejected/s"] == "0.5"
    assert present.figures["artifact"] == "000002"
    assert present.lag == [("t-events-0", 3), ("t-events-1", 7)]
    assert present.items == [("tent", 4.5)]


def test_the_interest_that_moved_most_is_shown_and_users_without_one_are_not(
    metrics: Metrics,
) -> None:
    present = Top(load_settings({}), None).look()
    assert present.interests == [("ada", "Baby [new]", 0.1, 0.1)]
    console = Console(width=120, record=True)
    console.print(present_view(present))
    text = console.export_text()
    assert "Baby [new]" in text
    assert "+10%" in text


def test_latency_is_that_of_the_lists_since_then(metrics: Metrics) -> None:
    def series() -> Series:
        return Series.of(metrics.exposition().decode(), 0.0)

    assert latency(series(), None, 0.5) is None
    metrics.latency.observe("0", np.full(99, 0.004))
    first = series()
    metrics.latency.observe("1", np.array([0.03, 70.0]))
    assert latency(series(), None, 0.5) == 0.005
    assert latency(series(), first, 0.5) == 0.05
    assert latency(series(), first, 0.99) == float("inf")
    assert latency(series(), series(), 0.5) is None


def test_hits_are_a_share_of_what_was_judged(metrics: Metrics) -> None:
    metrics.next_events.labels("yes").inc(1)
    metrics.next_events.labels("no").inc(3)
    assert Top(load_settings({}), None).look().figures["live hit rate"] == "25.0%"


def test_the_command_prints_once_if_asked_for(metrics: Metrics) -> None:
    done = CliRunner().invoke(cli, ["top", "--once", "--every", "0.2"])
    assert done.exit_code == 0
    assert "trending items" in done.output


def test_nothing_to_see_is_shown_as_well() -> None:
    Console(width=80, record=True).print(present_view(Present({})))
