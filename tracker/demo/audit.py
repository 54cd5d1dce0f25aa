"""Audit of a run: every event has its recommendation, and how long that took."""

import asyncio
import bisect
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec
import numpy as np

from tracker.events.wire import Recommendation
from tracker.explained import Explained
from tracker.kafka.client import Received, read_topic
from tracker.kafka.cluster import topics_of
from tracker.settings import Settings

PERCENTILES = (50, 95, 99)


class AuditError(Explained):
    """Records were lost; the message says which, and how many."""


class _Id(msgspec.Struct):
    """The only field of a recommendation that the audit reads."""

    id: str


@dataclass
class Truth:
    """Content of the topic of events: the last offset of every user, by user and partition."""

    events: int = 0
    first_appended: float = float("inf")
    last: dict[tuple[bytes, int], int] = field(default_factory=dict)

    @property
    def users(self) -> int:
        """The number of distinct users."""
        return len({user for user, _ in self.last})


@dataclass
class UserLists:
    """Lists of one user from one partition: offsets in their ids, and append times."""

    offsets: list[int] = field(default_factory=list)
    appended: list[float] = field(default_factory=list)


async def read_events(settings: Settings) -> Truth:
    """Read the topic of events from its beginning to its end.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the topic does not exist.
    """
    truth = Truth()
    async with aclosing(read_topic(settings, topics_of(settings).events)) as records:
        async for record in records:
            truth.events += 1
            truth.first_appended = min(truth.first_appended, record.appended)
            truth.last[record.key or b"", record.partition] = record.offset
    return truth


async def count_records(settings: Settings, topic: str) -> int:
    """Count the records of a topic."""
    count = 0
    async with aclosing(read_topic(settings, topic)) as records:
        async for _ in records:
            count += 1
    return count


class Follower:
    """Follows the topic of recommendations while a worker makes them."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is read before `run`.

        Args:
            settings: names and how to reach the broker.
        """
        self.lists: dict[tuple[bytes, int], UserLists] = {}
        self.count = 0
        self.ready = asyncio.Event()
        self._settings = settings
        self._latest: dict[bytes, bytes] = {}
        self._decoder = msgspec.json.Decoder(_Id)
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Read until it is cancelled."""
        topic = topics_of(self._settings).recommendations
        records = read_topic(self._settings, topic, follow=True, ready=self.ready.set)
        async with aclosing(records):
            async for record in records:
                self._take(record)

    def _take(self, record: Received) -> None:
        if record.key is None or record.value is None:
            return
        partition, offset = self._decoder.decode(record.value).id.rsplit("-", 2)[1:]
        lists = self.lists.setdefault((record.key, int(partition)), UserLists())
        if not lists.offsets or int(offset) > lists.offsets[-1]:  # a repeat brings nothing new
            lists.offsets.append(int(offset))
            lists.appended.append(record.appended)
            self._latest[record.key] = record.value
        self.count += 1
        self._news.set()

    def latest(self, user_id: str) -> Recommendation | None:
        """Return a user's list of the highest offset, None before the first."""
        value = self._latest.get(user_id.encode())
        return None if value is None else msgspec.json.decode(value, type=Recommendation)

    def answered(self, user: bytes, partition: int, offset: int) -> float | None:
        """Return when the first list was appended that has this event in it, None before."""
        lists = self.lists.get((user, partition))
        if lists is None:
            return None
        place = bisect.bisect_left(lists.offsets, offset)
        return lists.appended[place] if place < len(lists.offsets) else None

    async def wait_for(
        self, events: Iterable[tuple[bytes, int, int]], stall_seconds: float
    ) -> float:
        """Wait until every one of these events is in a list.

        Args:
            events: user, partition and offset of each.
            stall_seconds: maximum time without a new recommendation.

        Returns:
            when the last of the lists was appended.

        Raises:
            AuditError: no recommendation came for that time; some of the users are named.
        """
        latest = 0.0
        pending: list[tuple[bytes, int, int]] = list(events)
        while True:
            unanswered = []
            for user, partition, offset in pending:
                appended = self.answered(user, partition, offset)
                if appended is None:
                    unanswered.append((user, partition, offset))
                else:
                    latest = max(latest, appended)
            if not unanswered:
                return latest
            pending = unanswered
            self._news.clear()
            try:
                async with asyncio.timeout(stall_seconds):
                    await self._news.wait()
            except TimeoutError as error:
                names = ", ".join(
                    f"{user.decode('utf-8', 'replace')} (partition {partition}, offset {offset})"
                    for user, partition, offset in unanswered[:5]
                )
                raise AuditError(
                    f"{len(unanswered)} users have no recommendation for their last event, and none"
                    f" came for {stall_seconds:g} s: {names}"
                ) from error
            await asyncio.sleep(0.05)


def latency_ms(seconds: Iterable[float]) -> dict[str, float]:
    """Return percentiles in milliseconds; nan for no values.

    >>> latency_ms([0.001, 0.002, 0.003])["p50"]
    2.0
    """
    values = np.fromiter(seconds, dtype=np.float64) * 1000
    if not len(values):
        return {f"p{percent}": float("nan") for percent in PERCENTILES}
    return {
        f"p{percent}": round(float(np.percentile(values, percent)), 3) for percent in PERCENTILES
    }
