"""The present of a worker: rates, latency, lag, trending items and movements of interest."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tracker.lookup.ask import AskError, ask, ask_metrics, path_of
from tracker.settings import Settings

ITEMS = 8
USERS = 6

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Series:
    """The metrics of a worker at one time, by the names of their samples."""

    at: float
    samples: Mapping[str, list[tuple[Labels, float]]]

    @classmethod
    def of(cls, text: str, at: float) -> "Series":
        """Parse Prometheus' text format; `at` is monotonic time in seconds."""
        samples: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name].append((sample.labels, sample.value))
        return cls(at, samples)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of samples that have these labels."""
        return sum(
            value for has, value in self.samples.get(name, []) if labels.items() <= has.items()
        )


@dataclass(frozen=True)
class Present:
    """Figures by name, and tables of what there is to see.

    `figures` are texts; `lag` events that wait by partition; `items` those that trend, with their
    counts; `interests` of users seen just now: user, label, share and its change since a day
    before.
    """

    figures: dict[str, str]
    lag: list[tuple[str, int]] = field(default_factory=list)
    items: list[tuple[str, float]] = field(default_factory=list)
    interests: list[tuple[str, str, float, float]] = field(default_factory=list)


def latency(now: Series, before: Series | None, share: float) -> float | None:
    """Return the bucket's bound, in seconds, within which a share of the lists came.

    Args:
        now: the metrics.
        before: earlier ones; only lists since then count. None for all.
        share: from 0 to 1.

    Returns:
        infinity above the last bound; None without a list.
    """
    name = "tracker_latency_seconds_bucket"
    counts: dict[float, float] = defaultdict(float)
    for series, sign in ((now, 1.0), (before, -1.0)):
        for labels, value in series.samples.get(name, []) if series is not None else ():
            counts[float(labels["le"])] += sign * value
    lists = counts.get(math.inf, 0.0)
    if lists <= 0:
        return None
    return next(edge for edge in sorted(counts) if counts[edge] >= share * lists)


class Top:
    """Asks a worker again and again; rates are those since the look before.

    Args:
        settings: where the worker is, and the token.
        url: web server of the worker; by default that of the settings.
        clock: monotonic time in seconds.
    """

    def __init__(
        self, settings: Settings, url: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._url = url
        self._clock = clock
        self._before: Series | None = None

    def look(self) -> Present:
        """Ask the worker.

        Raises:
            AskError: no worker answers.
        """
        now = Series.of(ask_metrics(self._settings, self._url), self._clock())
        before, self._before = self._before, now
        workers = self._ask("workers")
        items = self._ask("items", k=ITEMS)["items"]
        users = [one["user_id"] for one in self._ask("users", k=USERS)["users"]]
        partitions = workers["partitions"]
        lag = [(f"{one['topic']}-{one['partition']}", int(one["lag"])) for one in partitions]
        return Present(
            figures(now, before) | {"artifact": workers["artifact"]},
            sorted(lag),
            [(one["item_id"], float(one["count"])) for one in items],
            list(self._movements(users)),
        )

    def _movements(self, users: Iterable[str]) -> Iterable[tuple[str, str, float, float]]:
        """Yield the interest of each user that moved most."""
        for user in users:
            try:
                interests = self._ask("users", user, "interests")["interests"]
            except AskError as error:
                if error.status != 404:  # deleted meanwhile
                    raise
                continue
            if interests:
                one = max(interests, key=lambda interest: abs(interest["change"]))
                yield user, one["label"], one["strength"], one["change"]

    def _ask(self, *parts: str, **query: object) -> dict[str, Any]:
        return ask(self._settings, self._url, path_of(*parts), list(query.items()))


def figures(now: Series, before: Series | None) -> dict[str, str]:
    """Return figures as texts by name; rates only if there are earlier metrics."""
    texts: dict[str, str] = {}
    if before is not None and now.at > before.at:
        for name, sample in (
            ("events/s", "tracker_events_total"),
            ("lists/s", "tracker_recommendations_total"),
            ("rejected/s", "tracker_rejected_total"),
        ):
            rate = (now.total(sample) - before.total(sample)) / (now.at - before.at)
            texts[name] = f"{rate:,.1f}"
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        bound = latency(now, before, share)
        bound = latency(now, None, share) if bound is None else bound
        if bound is not None:
            texts[f"latency {name}"] = "above 60 s" if math.isinf(bound) else f"<= {bound:g} s"
    texts["events that wait"] = f"{now.total('tracker_lag'):,.0f}"
    count = now.total("tracker_next_events_total")
    if count:
        hits = now.total("tracker_next_events_total", in_list="yes")
        texts["live hit rate"] = f"{hits / count:.1%}"
    return texts
