"""Metrics: counters and gauges of a worker, for Prometheus and for its own health."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from tracker.recommend.learner import Progress

LATENCY_SECONDS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0,
)  # fmt: skip


LEARNING_VALUES = ("distance", "loss", "gain")
LEARNING_MODELS = ("ranker", "attention", "calibration")


class LatencyHistogram(Collector):
    """A histogram that observes whole arrays: one observation each would cost a microsecond."""

    def __init__(self, name: str, help_text: str) -> None:
        self._name = name
        self._help = help_text
        self._edges = np.array(LATENCY_SECONDS)
        self._counts = np.zeros(len(LATENCY_SECONDS) + 1, np.int64)
        self._total = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: NDArray[np.float64]) -> None:
        """Count latencies (N,) float64, in seconds."""
        places = np.searchsorted(self._edges, seconds)
        counts = np.bincount(places, minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._total += float(seconds.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histogram in Prometheus' form."""
        with self._lock:
            cumulated = self._counts.cumsum()
            total = self._total
        names = [*map(str, LATENCY_SECONDS), "+Inf"]
        buckets = [(name, float(n)) for name, n in zip(names, cumulated, strict=True)]
        yield HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=total)


class Metrics:
    """All counters of a worker, in a registry of its own.

    Args:
        clock: monotonic time in seconds, for the time since the last commit.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = registry = CollectorRegistry()
        self._clock = clock
        self.started_at = clock()
        self.committed_at = clock()

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
        self.ratings_beyond_scale = counter(
            "ratings_beyond_scale", "ratings outside the artifact's scale, which are cut"
        )
        self.unknown_items = counter(
            "unknown_items", "events of items that are not in the catalogue"
        )
        self.replayed = counter("replayed", "events and item events that were applied before")
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
        self.latency = LatencyHistogram(
            "tracker_latency_seconds", "time from the append of an event to its recommendation"
        )
        registry.register(self.latency)
        self.lag = gauge("lag", "events not yet applied", ("topic", "partition"))
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
        self.item_feed_lag = gauge("item_feed_lag", "item states not yet read")

    def committed(self, table: str, seconds: float) -> None:
        """Count a commit."""
        self.commits.labels(table).inc()
        self.commit_seconds.labels(table).observe(seconds)
        self.committed_at = self._clock()

    def count_unreadable(self, table: str, problem: str) -> None:
        """Count a row that cannot be read."""
        self.unreadable_rows.labels(table, problem).inc()

    def observe_learning(self, partition: str, progress: Mapping[str, Progress]) -> None:
        """Update the gauges of a partition's learner."""
        for model, at in progress.items():
            for value in LEARNING_VALUES:
                self.learning.labels(model, value, partition).set(getattr(at, value))

    def seconds_since_commit(self) -> float:
        """Return the seconds since the last commit of any partition."""
        return self._clock() - self.committed_at

    def forget_partition(self, table: str, topics: Iterable[str], partition: int) -> None:
        """Remove the gauges of a partition that was revoked, and of the topics that it read."""
        labels = [(self.rows, table), (self.dirty_rows, table)]
        for family, first in [*((self.lag, topic) for topic in topics), *labels]:
            family.remove(first, str(partition))
        if table == "users":
            self.pending_lists.remove(str(partition))
            for model in LEARNING_MODELS:
                for value in LEARNING_VALUES:
                    self.learning.remove(model, value, str(partition))

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
