"""Metrics of a worker: Prometheus text, latencies in one go, and for how long nothing moved."""

import numpy as np

from tracker.stream.metrics import Metrics


def test_counters_appear_in_prometheus_text() -> None:
    metrics = Metrics()
    metrics.events.inc(3)
    metrics.rejected.labels("bad_json").inc()
    metrics.lag.labels("events", "0").set(5)
    text = metrics.exposition().decode()
    assert "tracker_events_total 3.0" in text
    assert 'tracker_rejected_total{reason="bad_json"} 1.0' in text
    assert 'tracker_lag{partition="0",topic="events"} 5.0' in text


def test_latencies_are_counted_an_array_at_a_time() -> None:
    metrics = Metrics()
    metrics.latency.observe("2", np.array([0.0005, 0.001, 0.03, 100.0]))
    metrics.latency.observe("2", np.zeros(0))

    def bucket(edge: str) -> float | None:
        labels = {"le": edge, "partition": "2"}
        return metrics.registry.get_sample_value("tracker_latency_seconds_bucket", labels)

    labels = {"partition": "2"}
    assert bucket("0.001") == 2
    assert bucket("0.05") == 3
    assert bucket("60.0") == 3
    assert bucket("+Inf") == 4
    assert metrics.registry.get_sample_value("tracker_latency_seconds_sum", labels) == 100.0315
    metrics.forget_partition("users", "t-events", 2)
    assert bucket("+Inf") is None


def test_gauges_of_a_partition_end_with_it() -> None:
    metrics = Metrics()
    metrics.lag.labels("t-events", "3").set(1)
    metrics.rows.labels("users", "3").set(1)
    metrics.dirty_rows.labels("users", "3").set(1)
    metrics.pending_lists.labels("3").set(1)
    metrics.forget_partition("users", ["t-events"], 3)
    metrics.forget_partition("items", ["t-items"], 9)  # nothing was ever set
    assert 'partition="3"' not in metrics.exposition().decode()
