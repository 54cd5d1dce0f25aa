"""Context: what the partitions of a worker share."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tracker.events.kinds import Kinds
from tracker.kafka.cluster import Cluster
from tracker.settings import Settings
from tracker.stream.metrics import Metrics
from tracker.stream.serving import ArtifactKeeper

DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Context:
    """What the partitions of a worker share."""

    settings: Settings
    cluster: Cluster
    keeper: ArtifactKeeper
    kinds: Kinds
    metrics: Metrics
    clock: Callable[[], float] = time.time

    @property
    def idle_seconds(self) -> float | None:
        """After how long without an event a state is deleted; None for never."""
        days = self.settings.state_idle_days
        return None if days is None else days * DAY_SECONDS
