"""Metrics: counters and gauges of a worker, for Prometheus and for its own health."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from tracker.recommend.learner import Labelled, Progress
from tracker.stream.live_quality import Coverage
from tracker.users.columns import (
    ALREADY_RETRACTED,
    APPLIED,
    DUPLICATE,
    JOINED,
    NOTHING_TO_JOIN,
    NOTHING_TO_TAKE_BACK,
    RETRACTED,
    RETRACTED_ON_ARRIVAL,
    RETRACTION_WAITS,
    TOO_OLD,
)

LATENCY_SECONDS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0,
)  # fmt: skip

DRIFT_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)

OUTCOMES = {
    APPLIED: "applied",
    DUPLICATE: "duplicate",
    RETRACTED: "retracted",
    RETRACTION_WAITS: "retraction_waits",
    TOO_OLD: "too_old",
    RETRACTED_ON_ARRIVAL: "retracted_on_arrival",
    ALREADY_RETRACTED: "already_retracted",
    NOTHING_TO_TAKE_BACK: "nothing_to_take_back",
    JOINED: "joined",
    NOTHING_TO_JOIN: "nothing_to_join",
}
"""Name of each outcome of an event, as the counter has it."""

LEARNING_VALUES = ("distance", "loss", "gain")
LEARNING_MODELS = ("ranker", "attention", "calibration")


class ArrayHistogram(Collector):
    """A histogram by partition that observes whole arrays: a value alone would cost a microsecond.

    Args:
        name: of the metric.
        help_text: what it measures.
        edges: upper bounds of the buckets.
    """

    def __init__(self, name: str, help_text: str, edges: Sequence[float]) -> None:
        self._name = name
        self._help = help_text
        self._labelnames = ("partition",)
        self._edges = np.array(edges)
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._totals: dict[str, float] = {}
        self._lock = threading.Lock()

    def observe(self, partition: str, values: NDArray[np.floating]) -> None:
        """Count values (N,) of a partition."""
        places = self._edges.searchsorted(values)
        counts = np.bincount(places, minlength=len(self._edges) + 1)
        total = float(values.sum())
        with self._lock:
            if partition in self._counts:
                self._counts[partition] += counts
                self._totals[partition] += total
            else:
                self._counts[partition] = counts
                self._totals[partition] = total

    def remove(self, partition: str) -> None:
        """Forget a partition that was revoked."""
        with self._lock:
            self._counts.pop(partition, None)
            self._totals.pop(partition, None)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histogram in Prometheus' form."""
        family = HistogramMetricFamily(self._name, self._help, labels=("partition",))
        names = [*(str(float(edge)) for edge in self._edges), "+Inf"]
        with self._lock:
            for partition, counts in self._counts.items():
                cumulated = counts.cumsum().tolist()
                buckets = [(name, float(n)) for name, n in zip(names, cumulated, strict=True)]
                family.add_metric([partition], buckets, self._totals[partition])
        yield family


class Metrics:
    """All counters of a worker, in a registry of its own.

    Args:
        clock: monotonic time in seconds, for the time since the last commit.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = registry = CollectorRegistry()
        self._clock = clock
        self.started_at = clock()

        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(f"tracker_{name}", text, tuple(labels), registry=registry)

        def gauge(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(f"tracker_{name}", text, tuple(labels), registry=registry)

        self.events = counter("events", "events accepted")
        self.recommendations = counter("recommendations", "recommendations sent")
        self.rejected = counter("rejected", "events rejected, by reason", ("reason",))
        self.unknown_fields = counter(
            "unknown_fields", "fields of events that were ignored, by name", ("name",)
        )
        self.passed_over = counter(
            "passed_over", "records of the format that say nothing of items, by word", ("word",)
        )
        self.outcomes = counter("outcomes", "accepted events, by outcome", ("outcome",))
        self.duplicates = counter("duplicates", "events whose event_id is in the ring already")
        self.too_old = counter("too_old", "retractions of events that are no longer in the ring")
        self.key_mismatch = counter(
            "key_mismatch",
            "events without a key, with a key that is not their user, or in a partition that is"
            " not their user's",
            ("cause",),
        )
        self.handed_on = counter(
            "handed_on", "events handed on to the owner of their user's partition"
        )
        for cause in ("no_key", "other_key", "other_partition"):
            self.key_mismatch.labels(cause)
        self.joins_elsewhere = counter(
            "joins_elsewhere", "joins of a user whose state is in another partition"
        )
        self.ratings_beyond_scale = counter(
            "ratings_beyond_scale", "ratings outside the artifact's scale, which are cut"
        )
        self.unknown_items = counter(
            "unknown_items", "events of items that are not in the catalogue"
        )
        self.not_of_items = counter(
            "not_of_items",
            "events that did not change their item, because their user had reached the cap",
        )
        self.replayed = counter(
            "replayed", "events and item events read again, and not applied twice"
        )
        self.skipped = counter(
            "skipped_offsets", "offsets that retention deleted before they were applied"
        )
        self.item_events = counter("item_events", "item events applied")
        self.dropped = counter("dropped", "records that the broker does not accept", ("topic",))
        self.unreadable_rows = counter(
            "unreadable_rows", "rows of a table that cannot be read", ("table", "problem")
        )
        self.commits = counter("commits", "commits of states and positions", ("table",))
        self.aborted = counter(
            "aborted_commits", "commits aborted by the broker, to be retried", ("table",)
        )
        self.deleted = counter("deleted_states", "states deleted after the idle time", ("table",))
        self.forgotten = counter("forgotten_users", "requests to forget a user, applied")
        self.forgotten_events = counter(
            "forgotten_events",
            "events dropped, because they are older than the request to forget their user",
        )
        self.rebuilt = counter(
            "rebuilt_states", "states rebuilt from their ring for a new artifact"
        )
        self.commit_seconds = Histogram(
            "tracker_commit_seconds",
            "duration of a commit",
            ("table",),
            registry=registry,
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
        )
        self.latency = ArrayHistogram(
            "tracker_latency_seconds",
            "time from the append of an event to its recommendation",
            LATENCY_SECONDS,
        )
        self.interest_drift = ArrayHistogram(
            "tracker_interest_drift",
            "share of a user's interests that moved within a day, when a list is made",
            DRIFT_SHARES,
        )
        registry.register(self.latency)
        registry.register(self.interest_drift)
        self.next_events = counter(
            "next_events",
            "first positive events after a list, by whether their item was in it",
            ("in_list",),
        )
        self.recommended_items = counter(
            "recommended_items", "items in lists, by the channel that brought them", ("channel",)
        )
        self.items_from = cache(self.recommended_items.labels)
        self.impersonal_lists = counter(
            "impersonal_lists", "lists of trending or default items alone"
        )
        self.coverage = Coverage(clock)
        gauge(
            "catalogue_coverage_ratio",
            "share of the catalogue that was in lists in this clock hour and the one before",
        ).set_function(self.coverage.share)
        self.requests = counter(
            "http_requests", "requests of the HTTP API, by route and status", ("route", "status")
        )
        self.request_seconds = Histogram(
            "tracker_http_seconds",
            "duration of a request of the HTTP API",
            ("route",),
            registry=registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        )
        self.lag = gauge("lag", "events not yet applied", ("topic", "partition"))
        self.broker_silence = gauge(
            "broker_silence_seconds", "seconds since the brokers last answered; 0 while they do"
        )
        self.waiting_bytes = gauge(
            "waiting_bytes",
            "bytes of lists, rejections and item events that the brokers have not accepted yet",
        )
        self.rows = gauge("rows", "states in memory", ("table", "partition"))
        self.dirty_rows = gauge(
            "dirty_rows", "states changed since the last snapshot", ("table", "partition")
        )
        self.pending_lists = gauge("owed_lists", "users whose list is postponed", ("partition",))
        self.artifact_sequence = gauge("artifact_sequence", "number of the artifact in use")
        self.artifact_swaps = counter("artifact_swaps", "changes to another artifact")
        self.refused_artifacts = counter("refused_artifacts", "artifacts refused")
        self.learning_steps = counter("learning_steps", "examples used for online learning")
        self.learning_restarts = counter(
            "learning_restarts", "restarts of online learning from the published models"
        )
        self.learning = gauge(
            "learning",
            "distance from the published model, loss, and gain of a model that learns online",
            ("model", "value", "partition"),
        )
        self.labelled = counter(
            "labelled_events", "events that say whether a prediction was right", ("label",)
        )
        self.predicted = counter(
            "predicted_probability", "sum of the probabilities predicted for labelled events"
        )
        self.item_feed_lag = gauge("item_feed_lag", "item states not yet read")

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request of the HTTP API."""
        self.requests.labels(route, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def rejected_by_reason(self) -> dict[str, int]:
        """Return how many events were rejected, by reason."""
        return {
            sample.labels["reason"]: int(sample.value)
            for family in self.rejected.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    def committed(self, table: str, seconds: float) -> None:
        """Count a commit."""
        self.commits.labels(table).inc()
        self.commit_seconds.labels(table).observe(seconds)

    def count_unreadable(self, table: str, problem: str) -> None:
        """Count a row that cannot be read."""
        self.unreadable_rows.labels(table, problem).inc()

    def count_labelled(self, labelled: Labelled) -> None:
        """Count events with a label, and what was predicted of them."""
        if labelled.count:
            self.labelled.labels("positive").inc(labelled.positive)
            self.labelled.labels("negative").inc(labelled.count - labelled.positive)
            self.predicted.inc(labelled.predicted)

    def observe_learning(self, partition: str, progress: Mapping[str, Progress]) -> None:
        """Update the gauges of a partition's learner."""
        for model, at in progress.items():
            for value in LEARNING_VALUES:
                self.learning.labels(model, value, partition).set(getattr(at, value))

    def forget_partition(self, table: str, topics: Iterable[str], partition: int) -> None:
        """Remove the gauges of a partition that was revoked, and of the topics that it read."""
        labels = [(self.rows, table), (self.dirty_rows, table)]
        for family, first in [*((self.lag, topic) for topic in topics), *labels]:
            family.remove(first, str(partition))
        if table == "users":
            self.pending_lists.remove(str(partition))
            self.latency.remove(str(partition))
            self.interest_drift.remove(str(partition))
            for model in LEARNING_MODELS:
                for value in LEARNING_VALUES:
                    self.learning.remove(model, value, str(partition))

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
