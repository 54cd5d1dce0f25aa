"""Serving: the artifact in use and what belongs to it, and the change to a newer one."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from tracker.artifact.artifact import Artifact
from tracker.artifact.versions import ArtifactError, latest_version
from tracker.events.kinds import Kinds
from tracker.items.view import ItemView
from tracker.kafka.cluster import Cluster
from tracker.recommend.list_json import ListEncoder
from tracker.recommend.options import RecommendOptions
from tracker.recommend.recommender import Recommender
from tracker.settings import Settings
from tracker.stream.item_feed import ItemFeed
from tracker.stream.metrics import Metrics
from tracker.users.config import InterestConfig
from tracker.users.states import row_dtype

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """An artifact, the live item view by its rows, and what makes lists of both."""

    artifact: Artifact
    view: ItemView
    recommender: Recommender
    encoder: ListEncoder

    @property
    def version(self) -> str:
        """The artifact's version."""
        return self.artifact.manifest.version

    @property
    def sequence(self) -> int:
        """The artifact's number."""
        return self.artifact.manifest.sequence

    @property
    def config(self) -> InterestConfig:
        """What shapes the users' states."""
        return self.artifact.manifest.interest


def make_serving(artifact: Artifact, settings: Settings) -> Serving:
    """Put an artifact into use with an empty item view."""
    view = ItemView(artifact.vectors)
    options = RecommendOptions(
        searches=settings.searches, seen=settings.seen, diversity=settings.diversity
    )
    return Serving(
        artifact, view, Recommender(artifact, view, options), ListEncoder(artifact.vectors)
    )


def same_shape(one: InterestConfig, other: InterestConfig) -> bool:
    """Tell whether rows of the states are laid out alike under both."""
    return row_dtype(one) == row_dtype(other) and (
        (one.seen_bits, one.seen_capacity) == (other.seen_bits, other.seen_capacity)
    )


class ArtifactKeeper:
    """Keeps the artifact in use, and changes it for the one that LATEST names.

    A new artifact is loaded, checked and warmed up in a thread beside the old one; its item view
    reads the items' changelog from the begin; only then is it put into use, between two chunks.
    One that cannot be used is refused once, and the old one stays.

    Args:
        settings: where artifacts are, and how often LATEST is looked at.
        feed: makes the feed of an item view.
        metrics: what is counted.
        warm_up: compiles what an artifact needs, so that no chunk has to wait for it.
    """

    def __init__(
        self,
        settings: Settings,
        feed: Callable[[ItemView], ItemFeed],
        metrics: Metrics,
        warm_up: Callable[[Serving], None],
    ) -> None:
        self._settings = settings
        self._make_feed = feed
        self._metrics = metrics
        self._warm_up = warm_up
        self._current: Serving | None = None
        self._feed: ItemFeed | None = None
        self._refused: str | None = None
        self._unreadable = False
        self._tolerated = 0
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def current(self) -> Serving:
        """What is in use.

        Raises:
            RuntimeError: nothing is loaded yet.
        """
        if self._current is None:
            raise RuntimeError("no artifact is loaded")
        return self._current

    @property
    def loaded(self) -> bool:
        """Whether an artifact is in use."""
        return self._current is not None

    @property
    def caught_up(self) -> bool:
        """Whether the item view has read what was there."""
        return self._feed is not None and self._feed.caught_up

    def use(self, serving: Serving) -> None:
        """Put the first artifact into use. Its feed starts with `start`."""
        self._current = serving
        self._metrics.artifact_sequence.set(serving.sequence)
        log.info("artifact %s is in use", serving.version)

    def start(self) -> None:
        """Begin to read item states, and to look for newer artifacts."""
        self._feed = self._make_feed(self.current.view)
        self._feed.start()
        self._task = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._feed is not None:
            await self._feed.stop()

    @property
    def newest(self) -> int:
        """Number of the newest artifact that states may name; LATEST may have gone back from it."""
        return max(self.current.sequence, self._tolerated)

    async def catch_up(self, sequence: int) -> bool:
        """Use the artifact that a state names, if LATEST does; else LATEST went back, and it may.

        Args:
            sequence: of the artifact that the state names.

        Returns:
            whether states may name it now; not where LATEST, or what it names, cannot be read:
            then nothing is known, and a state must not be made anew on a guess.
        """
        if await self.refresh() and sequence > self.current.sequence:
            self._tolerated = max(self._tolerated, sequence)
        return sequence <= self.newest

    async def refresh(self) -> bool:
        """Look at LATEST once, and use what it names; return whether that is in use."""
        async with self._lock:
            try:
                version = await asyncio.to_thread(latest_version, self._settings.artifacts)
            except (ArtifactError, OSError) as error:
                if not self._unreadable:
                    self._unreadable = True
                    log.warning("LATEST cannot be read, %s stays: %s", self.current.version, error)
                return False
            self._unreadable = False
            if version in (self.current.version, self._refused):
                return version == self.current.version
            try:
                await self._change(version)
            except (ArtifactError, OSError) as error:
                self._refused = version
                self._metrics.refused_artifacts.inc()
                log.error(
                    "artifact %s is refused, %s stays: %s", version, self.current.version, error
                )
            return version == self.current.version

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._settings.artifact_poll_seconds)
            await self.refresh()

    async def _change(self, version: str) -> None:
        begun = time.monotonic()
        serving = await asyncio.to_thread(self._load, version)
        if not same_shape(serving.config, self.current.config):
            raise ArtifactError(
                f"artifact {version} shapes states otherwise ({serving.config}) than the one in"
                f" use ({self.current.config}); stop the workers, run"
                " `tracker reset-state --everything`, and start them again"
            )
        feed = self._make_feed(serving.view)
        feed.start()
        try:
            await feed.wait_caught_up()
        except asyncio.CancelledError:
            await feed.stop()
            raise
        old_feed, old, self._feed, self._current = self._feed, self.current, feed, serving
        self._refused = None
        self._metrics.artifact_sequence.set(serving.sequence)
        self._metrics.artifact_swaps.inc()
        log.info(
            "artifact %s is in use instead of %s, after %.1f s",
            version, old.version, time.monotonic() - begun,
        )  # fmt: skip
        if old_feed is not None:
            await old_feed.stop()

    def _load(self, version: str) -> Serving:
        try:
            serving = make_serving(load_artifact(self._settings, version), self._settings)
            self._warm_up(serving)
            return serving
        except ValueError as error:  # options that its ranker asks for, a GPU that is not there
            raise ArtifactError(f"artifact {version}: {error}") from error


def load_artifact(settings: Settings, version: str | None = None) -> Artifact:
    """Load an artifact as the settings say; the latest by default.

    Raises:
        ArtifactError: there is none, or it cannot be used.
    """
    artifact = Artifact.load(
        settings.artifacts,
        version,
        settings.index_device,
        cache=settings.data_dir / "artifacts",
        encoder_device=settings.device,
    )
    if artifact.models.tower is not None:
        artifact.models.tower.serve_on_one_thread()
    return artifact


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
