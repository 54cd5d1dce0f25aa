"""Requests to forget a user: sent, waited for, and when what the cluster keeps is gone."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from tracker.explained import Explained
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import TopicError, describe_topics, topics_of
from tracker.kafka.connect import producer
from tracker.kafka.forget import AUDIT_PREFIX, Audit, ended_offset, new_request
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kafka.topics import MOST_COMPACTION_LAG_MS, configs_of
from tracker.settings import Settings

READY_SECONDS = 15.0
"""Time that the brokers may take to open the forget topic."""


class ForgetError(Explained):
    """The id cannot be that of a user, or the request cannot be sent."""


@dataclass(frozen=True)
class Remainder:
    """A place that keeps something of the user for a while.

    Attributes:
        place: topic, database or file.
        what: the data there.
        seconds: time from now after which it is gone; None if nothing bounds it.
    """

    place: str
    what: str
    seconds: float | None


@dataclass
class ForgetReport:
    """State of a request.

    Attributes:
        request: its id, which the audit records carry.
        partitions: number of partitions that have to apply it.
        waiting: those that have not, in the time that was waited.
        events_taken_out: events in the ring that were taken out of items.
        events_left: older events, which stay in the counts of items without a name.
        was_known: whether any partition had a state of the user.
        remainders: what other places keep.
    """

    request: str
    partitions: int
    waiting: list[int] = field(default_factory=list)
    events_taken_out: int = 0
    events_left: int = 0
    was_known: bool = False
    remainders: list[Remainder] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if all partitions have applied the request."""
        return not self.waiting


async def forget_user(settings: Settings, user_id: str, wait_seconds: float) -> ForgetReport:
    """Ask the workers to forget a user, and wait until they have.

    1. Find out until when topics keep records of the user.
    2. Send a request to every partition of the forget topic.
    3. Wait for the tombstones with which the workers end it, and read their audit records.

    Args:
        settings: where the brokers are.
        user_id: id or pseudonym of the user; with a key, the request has the pseudonym.
        wait_seconds: time to wait; the request is valid whether or not a worker runs now.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the forget topic does not exist.
        ForgetError: the id is empty, or is not one of a user.
    """
    key = pseudonyms_of(settings).of_any(user_id).encode()
    if not user_id or user_id.startswith("\0"):
        raise ForgetError(f"the user id is {user_id!r}; a text without a leading NUL is expected")
    topic = topics_of(settings).forget
    info = (await describe_topics(settings, [topic])).get(topic)
    if info is None:
        raise TopicError(f"topic {topic} does not exist: run 'tracker topics', restart the workers")
    request = new_request()
    report = ForgetReport(request.request, info.partitions, list(range(info.partitions)))
    # 1. Find out what is left.
    report.remainders = await remainders(settings)
    # 2. Send the requests; the answers are read from before them.
    ready = asyncio.Event()
    offsets: dict[int, int] = {}
    answers = asyncio.create_task(_answers(settings, topic, key, offsets, report, ready))
    try:
        async with asyncio.timeout(READY_SECONDS):
            await asyncio.wait(
                {answers, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED
            )
        value = msgspec.json.encode(request)
        async with producer(settings) as client:
            for number in range(info.partitions):
                stored = await client.send_and_wait(topic, value, key, number)
                offsets[number] = int(stored.offset)
        # 3. Wait for the answers.
        await asyncio.wait({answers}, timeout=wait_seconds)
        if answers.done():
            answers.result()
    finally:
        answers.cancel()
        await asyncio.gather(answers, return_exceptions=True)
    return report


async def _answers(
    settings: Settings,
    topic: str,
    key: bytes,
    offsets: dict[int, int],
    report: ForgetReport,
    ready: asyncio.Event,
) -> None:
    """Read the forget topic until all partitions have ended the request."""
    ends: dict[int, int] = {}
    audits: set[int] = set()
    reader = read_topic(settings, topic, from_beginning=False, follow=True, ready=ready.set)
    async with aclosing(reader) as records:
        async for record in records:
            if record.key == key and record.value is None:
                ends[record.partition] = max(ends.get(record.partition, -1), ended_offset(record))
            elif (record.key or b"").startswith(AUDIT_PREFIX) and record.value is not None:
                audit = msgspec.json.decode(record.value, type=Audit)
                if audit.request == report.request and audit.partition not in audits:
                    audits.add(audit.partition)
                    report.events_taken_out += audit.events_taken_out
                    report.events_left += audit.events_left
                    report.was_known |= audit.was_known
            report.waiting = [
                number
                for number in range(report.partitions)
                if number not in audits
                or number not in offsets
                or ends.get(number, -1) < offsets[number]
            ]
            if not report.waiting:
                return


async def remainders(settings: Settings) -> list[Remainder]:
    """Return what is left of a user who was forgotten now, and until when.

    Raises:
        BrokerError: the broker cannot be used.
    """
    names = topics_of(settings)
    configs = await configs_of(settings, list(names.all()))
    rest = [
        Remainder(topic, what, _retention(configs.get(topic, {})))
        for topic, what in (
            (names.events, "events, as producers wrote them"),
            (names.recommendations, "lists that were sent"),
            (names.rejected, "records that were not taken"),
            (names.items, "item events, by the place of the event"),
            (names.hand_over, "events that were handed on"),
        )
    ]
    rest += [
        Remainder(topic, "rows and their keys, until the log is compacted", _bound(configs[topic]))
        for topic in (names.users_changelog, names.forget)
    ]
    if names.user_keys:
        what = "the key of the user's rows; until then backups of them can be read with one of it"
        rest.append(Remainder(names.user_keys, what, _bound(configs[names.user_keys])))
    rest += [
        Remainder("databases of running workers", "rows", 2 * settings.erase_seconds),
        Remainder(
            "the changelog", "a salted hash, by which late events are dropped",
            settings.forget_hash_days * 86400.0,
        ),
        Remainder("the index", "attributes by a hash of the id, until the next build", None),
        Remainder("trained weights", "what they learned of all users; it is not removed", None),
    ]  # fmt: skip
    return rest


def until(remainder: Remainder, now: float | None = None) -> str:
    """Return until when a place keeps its data, as text in UTC."""
    if remainder.seconds is None:
        return "no time bounds it"
    moment = time.gmtime((time.time() if now is None else now) + remainder.seconds)
    return "until " + time.strftime("%Y-%m-%d %H:%M UTC", moment)


def _number(config: dict[str, str], name: str) -> int | None:
    text = config.get(name, "")
    return int(text) if text.isdigit() else None


def _retention(config: dict[str, str]) -> float | None:
    """Return the seconds after which records leave a log: its retention and that of a segment."""
    retention, segment = _number(config, "retention.ms"), _number(config, "segment.ms")
    if retention is None:
        return None
    return (retention + min(segment or 0, retention)) / 1000


def _bound(config: dict[str, str]) -> float | None:
    """Return the seconds after which a deleted key has left a compacted log.

    The old rows leave it in one compaction, the mark of the deletion in a later one.
    """
    lag, kept_ms = _number(config, "max.compaction.lag.ms"), _number(config, "delete.retention.ms")
    if lag is None or kept_ms is None or lag > MOST_COMPACTION_LAG_MS:
        return None
    return (2 * lag + kept_ms) / 1000
