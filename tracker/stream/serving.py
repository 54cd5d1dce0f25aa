"""Serving: the artifact in use with its item view, and the change to a newer artifact.

What can break one event's path: see docs/design/one-event-one-commit.md.
"""

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tracker.artifact.artifact import Artifact, read_texts
from tracker.artifact.versions import ArtifactError, latest_version
from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.events.dialect import Dialect
from tracker.events.kinds import Kinds
from tracker.events.text_caches import TextCaches
from tracker.events.wire import Rejection
from tracker.explained import first_line
from tracker.feeds.background import BackgroundTask, OnDeath, log_death
from tracker.feeds.forget_feed import ForgetFeed
from tracker.feeds.item_feed import ItemFeed
from tracker.feeds.topic_feed import FeedStalledError
from tracker.items.view import ItemView
from tracker.kafka.cluster import Cluster
from tracker.kafka.pseudonyms import Pseudonyms
from tracker.recommend.list_json import ListEncoder
from tracker.recommend.options import RecommendOptions
from tracker.recommend.recommender import Recommender
from tracker.settings import Settings
from tracker.stream.aside import ProcessEndedError
from tracker.stream.metrics import Metrics
from tracker.stream.replay import Replay
from tracker.stream.tracing import Trace, no_trace
from tracker.users.config import InterestConfig
from tracker.users.rows import UserRows
from tracker.users.states import row_dtype

log = logging.getLogger(__name__)

CATCH_UP_SECONDS = 5.0
"""Maximum time that a partition waits for an artifact before it looks whether it has to close."""

CHANGE_SECONDS = 1800.0
"""Time in which a new artifact may be copied, loaded, warmed up and filled with item states."""

RETRY_SECONDS = 30.0
"""Wait before an artifact is tried again whose check was killed, or whose feed has stalled."""


@dataclass(frozen=True, slots=True)
class Serving:
    """An artifact, the live view of its items, and the recommender and encoder of its lists."""

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
        """The configuration of the users' states."""
        return self.artifact.manifest.interest


def make_serving(artifact: Artifact, settings: Settings) -> Serving:
    """Return the serving of an artifact, with an empty item view."""
    view = ItemView(artifact.vectors, artifact.manifest.item_counts)
    options = RecommendOptions(
        searches=settings.searches,
        seen=settings.seen,
        diversity=settings.diversity,
        explain=settings.explain,
    )
    texts = read_texts(artifact.path)
    return Serving(
        artifact, view, Recommender(artifact, view, options), ListEncoder(artifact.vectors, texts)
    )


def same_layout(one: InterestConfig, other: InterestConfig) -> bool:
    """Return whether rows of states have the same layout under both configurations."""
    return row_dtype(one) == row_dtype(other) and (
        (one.seen_bits, one.seen_capacity) == (other.seen_bits, other.seen_capacity)
    )


class ArtifactKeeper:
    """Holds the artifact in use, and replaces it by the one that LATEST names.

    A new artifact is loaded, checked and warmed up in a thread while the old one serves, a large
    one in a process of its own before; its item view reads the items' changelog from the beginning;
    only then is it used, between two chunks. One that cannot be used is refused once, and the old
    one stays, as it does if LATEST names it again by then. A change runs in a task of its own: who
    waits for it waits with a deadline, and holds nothing.

    Args:
        settings: where artifacts are, and how often LATEST is read.
        feed: makes the feed of an item view.
        metrics: counters and gauges.
        warm_up: compiles the kernels that an artifact needs, so that no chunk waits for them.
        on_death: called if the polling of LATEST ends by itself.
        check: loads a version in another process, and says whether it has; by default none does.
    """

    def __init__(
        self,
        settings: Settings,
        feed: Callable[[ItemView], ItemFeed],
        metrics: Metrics,
        warm_up: Callable[[Serving], None],
        on_death: OnDeath = log_death,
        check: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._settings = settings
        self._make_feed = feed
        self._check = check
        self._metrics = metrics
        self._warm_up = warm_up
        self._current: Serving | None = None
        self._feed: ItemFeed | None = None
        self._refused: tuple[str, str] | None = None  # a version, and why
        self._unreadable = False
        self._problem: str | None = None
        self._tolerated = 0
        self._retry: tuple[str, float] | None = None  # a version, and when to try it again
        self._following: asyncio.Task[bool] | None = None
        self._task = BackgroundTask("the poll for artifacts", on_death)

    @property
    def problem(self) -> str | None:
        """The reason why the version that LATEST names is not in use; None if there is none."""
        return self._problem

    @property
    def current(self) -> Serving:
        """The artifact in use.

        Raises:
            RuntimeError: no artifact is loaded yet.
        """
        if self._current is None:
            raise RuntimeError("no artifact is loaded")
        return self._current

    @property
    def loaded(self) -> bool:
        """True if an artifact is in use."""
        return self._current is not None

    @property
    def caught_up(self) -> bool:
        """True if the item view has read the changelog up to its end at the start."""
        return self._feed is not None and self._feed.caught_up

    @property
    def feed_failing_seconds(self) -> float:
        """Seconds since the item feed last had an answer of the brokers; 0 if it has."""
        return 0.0 if self._feed is None else self._feed.failing_seconds

    def stuck(self, seconds: float) -> list[str]:
        """Return a line for each task of the keeper that has not gone on for longer than that."""
        feed = [] if self._feed is None else self._feed.stuck(seconds)
        return feed + self._task.stuck(max(seconds, CHANGE_SECONDS))

    def use(self, serving: Serving) -> None:
        """Use the first artifact. Its feed starts with `start`."""
        self._current = serving
        self._metrics.artifact_sequence.set(serving.sequence)
        log.info("using artifact %s", serving.version)

    def start(self) -> None:
        """Start the item feed, and the polling of LATEST."""
        self._feed = self._make_feed(self.current.view)
        self._feed.start()
        self._task.start(self._poll())

    async def stop(self) -> None:
        """Stop polling and close the item feed, each within a deadline."""
        await self._task.stop()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following}, timeout=CATCH_UP_SECONDS)
        if self._feed is not None:
            await self._feed.stop()

    @property
    def newest(self) -> int:
        """Number of the newest artifact that states may name; LATEST may have been rolled back."""
        return max(self.current.sequence, self._tolerated)

    async def catch_up(self, sequence: int) -> bool:
        """Load the artifact that a state names, if LATEST names it too.

        If LATEST names an older one, it was rolled back, and states may name the newer one.

        Args:
            sequence: number of the artifact that the state names.

        Returns:
            whether states may name it now. False if LATEST or its artifact cannot be read, or not
            within CATCH_UP_SECONDS: a state must not be rebuilt on a guess.
        """
        if await self.refresh(CATCH_UP_SECONDS) and sequence > self.current.sequence:
            self._tolerated = max(self._tolerated, sequence)
        return sequence <= self.newest

    async def refresh(self, seconds: float | None = None) -> bool:
        """Read LATEST and use the artifact it names; return whether that one is in use.

        Args:
            seconds: maximum time to wait; then the answer is False, and the change goes on.
        """
        try:
            async with asyncio.timeout(seconds):
                before = self._following
                if before is not None:  # it may have read LATEST before we were called
                    await asyncio.wait({before})
                if self._following is before:
                    self._following = asyncio.create_task(self._follow())
                assert self._following is not None
                return await asyncio.shield(self._following)
        except TimeoutError:
            return False

    async def _follow(self) -> bool:
        """Read LATEST once, and use the artifact it names; return whether that one is in use."""
        try:
            version = await asyncio.to_thread(latest_version, self._settings.artifacts)
        except Exception as error:  # any library of an fsspec URL; the old artifact stays
            if not self._unreadable:
                self._unreadable = True
                self._problem = f"LATEST cannot be read: {first_line(error)}"
                log.warning(
                    "LATEST cannot be read; artifact %s stays in use: %s",
                    self.current.version, first_line(error),
                )  # fmt: skip
            return False
        self._unreadable = False
        if version == self.current.version:
            self._problem = None
            return True
        if self._refused is not None and self._refused[0] == version:
            self._problem = self._refused[1]
            return False
        if self._retry is not None and self._retry[0] == version:
            if time.monotonic() < self._retry[1]:
                return False
        else:
            self._retry = self._problem = None
        try:
            await self._change(version)
        except (FeedStalledError, ProcessEndedError) as error:
            self._retry = version, time.monotonic() + RETRY_SECONDS
            self._problem = f"{version} waits: {error}"
            log.error(
                "artifact %s waits, and artifact %s stays in use; trying again in %g s: %s",
                version, self.current.version, RETRY_SECONDS, error,
            )  # fmt: skip
        except Exception as error:  # a bad artifact must not end the worker
            # People who may only read see it, so it does not say where files lie.
            why = re.sub(rf"\S*/(?={re.escape(version)})", "", first_line(error))
            self._problem = f"{version} is refused: {why}"
            self._refused = version, self._problem
            self._metrics.refused_artifacts.inc()
            is_known = isinstance(error, (ArtifactError, OSError))
            log.error(
                "artifact %s is refused; artifact %s stays in use: %s",
                version, self.current.version, first_line(error),
                exc_info=None if is_known else error,
            )  # fmt: skip
        return version == self.current.version

    async def _poll(self) -> None:
        while True:
            self._task.beat()
            await asyncio.sleep(self._settings.artifact_poll_seconds)
            await self.refresh()

    async def _change(self, version: str) -> None:
        started_at = time.monotonic()
        try:
            checked = self._check is not None and await self._check(version)
            serving = await asyncio.to_thread(self._load, version, checked)
        except ValueError as error:  # options that its ranker asks for, a GPU that is not there
            raise ArtifactError(f"artifact {version}: {error}") from error
        if not same_layout(serving.config, self.current.config):
            raise ArtifactError(
                f"artifact {version} has an incompatible state layout ({serving.config}; the one"
                f" in use has {self.current.config}): stop the workers, run"
                " `tracker reset-state --everything`, and start them again"
            )
        feed = self._make_feed(serving.view)
        feed.start(slowly=True)
        try:
            await feed.wait_caught_up()
            latest = await self._latest()
        except (FeedStalledError, asyncio.CancelledError):
            await feed.stop()
            raise
        if latest == self.current.version:
            log.info("artifact %s is not used: it was rolled back meanwhile", version)
            await feed.stop()
            return
        old_feed, old, self._feed, self._current = self._feed, self.current, feed, serving
        self._refused = self._problem = None
        self._metrics.artifact_sequence.set(serving.sequence)
        self._metrics.artifact_swaps.inc()
        log.info(
            "using artifact %s instead of %s, loaded in %.1f s",
            version, old.version, time.monotonic() - started_at,
        )  # fmt: skip
        if old_feed is not None:
            await old_feed.stop()

    async def _latest(self) -> str | None:
        """Return the version that LATEST names, or None if it cannot be read."""
        try:
            return await asyncio.to_thread(latest_version, self._settings.artifacts)
        except Exception:  # any library of an fsspec URL
            return None

    def _load(self, version: str, checked: bool) -> Serving:
        artifact = load_artifact(self._settings, version, checked)
        serving = make_serving(artifact, self._settings)
        self._warm_up(serving)
        return serving


def copies_of(settings: Settings) -> Path:
    """Return the folder of the worker's own copies of artifacts."""
    return settings.data_dir / "artifacts"


def load_artifact(
    settings: Settings, version: str | None = None, checked: bool = False
) -> Artifact:
    """Load an artifact as the settings say.

    Args:
        settings: where it is, and on which devices it is used.
        version: the latest by default.
        checked: whether another process has just loaded it with these settings.

    Raises:
        ArtifactError: there is none, or it cannot be used.
    """
    artifact = Artifact.load(
        settings.artifacts,
        version,
        settings.index_device,
        cache=copies_of(settings),
        encoder_device=settings.device,
        public_key=settings.artifact_public_key,
        checked=checked,
    )
    if artifact.models.tower is not None:
        artifact.models.tower.serve_on_one_thread()
    return artifact


DAY_SECONDS = 86400.0

LAST_REJECTIONS = 100

REJECTED_BYTES = 1024
"""Bytes of a rejected record that are remembered, for people who look."""


class LastRejection(NamedTuple):
    """A record that was not taken, and its first bytes."""

    rejection: Rejection
    value: bytes


@dataclass(frozen=True, slots=True)
class Context:
    """Settings, clients and counters that the partitions of a worker share.

    Attributes:
        settings: where the tracker runs.
        cluster: topics, their partitions, and whether the brokers have transactions.
        keeper: holds the artifact in use.
        kinds: weights of the kinds of events.
        metrics: counters and gauges.
        clock: wall time, in seconds.
        log_once: messages that this worker has logged and does not repeat.
        trace: opens a span of a chunk's trace.
        rejections: the last records of the events topic that were not taken.
        dialect: format of the events; None for our own.
        forget_feed: requests to forget a user; None if there is no topic of them.
        replay: the replay that builds the states; None for a worker that serves.
        caches: of ids, scenes and values in events.
        pseudonyms: the names under which users are kept.
    """

    settings: Settings
    cluster: Cluster
    keeper: ArtifactKeeper
    kinds: Kinds
    metrics: Metrics
    clock: Callable[[], float] = time.time
    log_once: set[str] = field(default_factory=set)
    trace: Trace = no_trace
    rejections: deque[LastRejection] = field(default_factory=lambda: deque(maxlen=LAST_REJECTIONS))
    dialect: Dialect | None = None
    forget_feed: ForgetFeed | None = None
    replay: Replay | None = None
    caches: TextCaches = field(default_factory=TextCaches)
    pseudonyms: Pseudonyms = field(default_factory=Pseudonyms)

    @property
    def idle_seconds(self) -> float | None:
        """Time without an event after which a state is deleted; None for never."""
        days = self.settings.state_idle_days
        return None if days is None else days * DAY_SECONDS

    @property
    def latest_time(self) -> float:
        """The latest time, in seconds, that stream time may have now."""
        return self.clock() + MAX_FUTURE_SECONDS

    def serving_for(self, users: UserRows) -> Serving:
        """Return the artifact in use; users' rows follow it before any of them is loaded."""
        serving = self.keeper.current
        users.follow(serving.config, serving.artifact.models.hidden, self.keeper.newest)
        return serving
