"""The Kafka cluster: client arguments, names of topics and group, and their description."""

import asyncio
import contextlib
import logging
import os
import re
import ssl
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    UnknownError,
    UnsupportedVersionError,
)
from aiokafka.protocol.admin import ApiVersionRequest

from tracker.explained import Explained, first_line
from tracker.kafka.denials import denial_of
from tracker.kafka.security import RenewedContext, TokenFile
from tracker.kafka.topic_ids import read_topics
from tracker.settings import Settings

log = logging.getLogger(__name__)

REQUEST_SECONDS = 15.0

PROBES = 3
"""How often a transactional producer is asked for before "unknown error" is an answer."""

PROBE_SECONDS = 0.2

TRANSACTION_REQUESTS = {27, 61, 65, 66}
"""WriteTxnMarkers, DescribeProducers, DescribeTransactions, ListTransactions.

Source: https://kafka.apache.org/protocol#protocol_api_keys. The embedded broker lists
InitProducerId too, which it does not do, and none of these.
"""


class BrokerError(Explained, ConnectionError):
    """The brokers cannot be reached, or refuse the connection."""


class TopicError(Explained):
    """A topic is missing, or does not fit the others."""


@dataclass(frozen=True)
class Topics:
    """Names of the topics of a tracker; a worker can do without `hand_over` and `forget`.

    That of the keys of users is empty if they have none.
    """

    events: str
    recommendations: str
    rejected: str
    items: str
    users_changelog: str
    items_changelog: str
    hand_over: str
    forget: str
    user_keys: str = ""

    def all(self) -> tuple[str, ...]:
        """Return the names, in the order of the fields."""
        names = (
            self.events,
            self.recommendations,
            self.rejected,
            self.items,
            self.users_changelog,
            self.items_changelog,
            self.hand_over,
            self.forget,
        )
        return (*names, self.user_keys) if self.user_keys else names


@dataclass(frozen=True)
class TopicInfo:
    """A topic as the brokers describe it; `topic_id` is empty if they give none."""

    name: str
    partitions: int
    topic_id: str


@dataclass(frozen=True)
class Cluster:
    """Topics of a cluster, and whether its brokers support transactions.

    The changelogs keep the mark of a deletion for at least `tombstone_seconds`.
    """

    topics: Topics
    info: dict[str, TopicInfo]
    transactions: bool
    tombstone_seconds: float = 86400.0

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of one of our topics."""
        return self.info[topic].partitions

    @property
    def hands_over(self) -> bool:
        """True if the topic for events outside their user's partition exists."""
        return self.topics.hand_over in self.info

    @property
    def forgets(self) -> bool:
        """True if there is a topic of requests to forget a user."""
        return self.topics.forget in self.info


def topics_of(settings: Settings) -> Topics:
    """Return the names of the topics; changelogs are named as Faust names them."""
    name, stream = settings.name, settings.stream or settings.name
    return Topics(
        events=f"{stream}-events",
        recommendations=f"{stream}-recommendations",
        rejected=f"{stream}-rejected",
        items=f"{name}-items",
        users_changelog=f"{name}-users-changelog",
        items_changelog=f"{name}-items-changelog",
        hand_over=f"{name}-handover",
        forget=f"{name}-forget",
        user_keys=f"{name}-user-keys" if settings.user_keys else "",
    )


def group_of(settings: Settings) -> str:
    """Return the name of the consumer group, which is Faust's application id too."""
    return settings.name


def ssl_context_of(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context; None if the protocol has no TLS.

    Raises:
        BrokerError: a file is missing, or not a PEM file.
    """
    if settings.security_protocol not in ("SSL", "SASL_SSL"):
        return None
    try:
        return RenewedContext.of_files(
            settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file
        )
    except (OSError, ssl.SSLError) as error:
        raise BrokerError(
            f"TLS files cannot be read ({error}); check TRACKER_TLS_CA_FILE,"
            " TRACKER_TLS_CERT_FILE and TRACKER_TLS_KEY_FILE"
        ) from error


def client_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments with which every aiokafka client reaches the brokers.

    Raises:
        BrokerError: a TLS file cannot be read.
        SettingsError: the file of the password cannot be read.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap,
        "security_protocol": settings.security_protocol,
    }
    context = ssl_context_of(settings)
    if context is not None:
        arguments["ssl_context"] = context
    if settings.security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            assert settings.sasl_token_file is not None
            arguments["sasl_oauth_token_provider"] = TokenFile(settings.sasl_token_file)
        else:
            arguments["sasl_plain_username"] = settings.sasl_username
            arguments["sasl_plain_password"] = settings.password()
    return arguments


@contextlib.asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[AIOKafkaClient]:
    """Yield a connected client that asks brokers single questions.

    Raises:
        BrokerError: the brokers cannot be reached, or do not allow it.
    """
    client = AIOKafkaClient(
        client_id=f"{settings.name}-check",
        request_timeout_ms=int(REQUEST_SECONDS * 1000),
        **client_arguments(settings),
    )
    try:
        with connecting(settings):
            async with asyncio.timeout(REQUEST_SECONDS):
                await client.bootstrap()
        yield client
    except BrokerError:
        raise
    except (KafkaError, OSError, TimeoutError) as error:
        raise unreachable(settings, error) from error
    finally:
        await client.close()


@contextlib.contextmanager
def connecting(settings: Settings) -> Iterator[None]:
    """Raise why no broker answers as one line, instead of aiokafka's log lines and its error.

    Raises:
        BrokerError: no broker answers.
    """
    reasons: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith("Unable connect"):
            return True
        if isinstance(record.args, tuple):
            reasons.append(_reason(record.args[-1]))
        return False

    logger = logging.getLogger("aiokafka")
    logger.addFilter(keep)
    try:
        yield
    except KafkaConnectionError as error:
        raise unreachable(settings, reasons[-1] if reasons else error) from error
    finally:
        logger.removeFilter(keep)


def unreachable(settings: Settings, reason: BaseException | str) -> BrokerError:
    """Return the error for brokers that do not answer, or do not allow what was asked."""
    denial = denial_of(reason)
    if denial is not None:
        return BrokerError(
            f"the Kafka brokers at {', '.join(settings.bootstrap)} do not allow it"
            f" ({first_line(denial)}); `tracker acls ROLE PRINCIPAL` prints the commands that give"
            " a worker or a command its rights"
        )
    return BrokerError(
        f"no answer from the Kafka brokers at {', '.join(settings.bootstrap)}"
        f" over {settings.security_protocol}: {_reason(reason)}; start one, or check"
        " TRACKER_BROKERS and TRACKER_SECURITY_PROTOCOL"
    )


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    text = str(error) or type(error).__name__
    refused = re.findall(r"\[Errno (\d+)\] Connect call failed", text)  # one per address of a name
    if refused:
        return ", ".join(dict.fromkeys(os.strerror(int(number)) for number in refused))
    return getattr(error, "strerror", None) or text


async def describe_topics(
    settings: Settings, names: Sequence[str] | None = None
) -> dict[str, TopicInfo]:
    """Describe those of our topics that exist, by name.

    Args:
        settings: where the brokers are.
        names: of the topics; by default of all. Each needs the right to describe it.

    Raises:
        BrokerError: the brokers cannot be reached, or do not allow it.
    """
    async with open_client(settings) as client:
        topics = await read_topics(client, names or topics_of(settings).all())
    return {name: TopicInfo(name, partitions, uid) for name, (partitions, uid) in topics.items()}


async def supports_transactions(settings: Settings) -> bool:
    """Return whether the brokers support transactions, by asking for a transactional producer.

    "No" is believed of brokers that do not say that they have them. A worker that took a moment's
    trouble for a "no" would run unfenced beside fenced ones.

    Raises:
        BrokerError: they refuse for another reason, for example of authorisation.
    """
    quiet = logging.getLogger("aiokafka.producer.sender")
    quiet.addFilter(_hide)  # it would call the answer we ask for an unexpected error
    try:
        return await _gets_transactional_producer(settings)
    finally:
        quiet.removeFilter(_hide)


def _hide(record: logging.LogRecord) -> bool:
    return "InitProducerId" not in record.getMessage()


async def _gets_transactional_producer(settings: Settings) -> bool:
    for attempt in range(PROBES):
        producer = AIOKafkaProducer(
            transactional_id=f"{settings.name}-probe",
            transaction_timeout_ms=int(settings.transaction_timeout_seconds * 1000),
            request_timeout_ms=int(REQUEST_SECONDS * 1000),
            **client_arguments(settings),
        )
        try:
            with connecting(settings):
                async with asyncio.timeout(REQUEST_SECONDS):
                    await producer.start()
        except (IncompatibleBrokerVersion, UnsupportedVersionError, NotImplementedError):
            return False
        except UnknownError as error:
            # The embedded broker's answer; a real one may give it while it starts.
            if attempt == PROBES - 1:
                if await _claims_transactions(settings):
                    raise BrokerError(
                        f"the brokers at {', '.join(settings.bootstrap)} have transactions, and"
                        f" give no producer of transactions now ({type(error).__name__}); try"
                        " again when they are well"
                    ) from error
                return False
            await asyncio.sleep(PROBE_SECONDS)
        except (KafkaError, TimeoutError) as error:
            raise BrokerError(
                f"the brokers at {', '.join(settings.bootstrap)} refuse the transactional id"
                f" {settings.name}-probe ({error or type(error).__name__}); ids with the prefix"
                f" {settings.name}- need Write and Describe rights"
            ) from error
        else:
            return True
        finally:
            with contextlib.suppress(KafkaError, OSError):
                await producer.stop()
    return False


async def _claims_transactions(settings: Settings) -> bool:
    """Return whether a broker lists requests that only brokers with transactions have.

    Raises:
        BrokerError: it does not answer.
    """
    async with open_client(settings) as client:
        node = client.get_random_node()
        if node is None or not await client.ready(node):
            raise unreachable(settings, "no broker of the cluster can be reached")
        answer = await client.send(node, ApiVersionRequest())
    return any(key in TRANSACTION_REQUESTS for key, *_ in answer.api_versions)


async def fetched_ends(
    settings: Settings, parts: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Return the end offset of each partition, from the answers to fetches.

    The embedded broker answers a request for the end offset with one inside the last batch; the
    one in its answers to fetches is right.

    Raises:
        BrokerError: the brokers cannot be reached, or do not answer in time.
    """
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=1,
        **client_arguments(settings),
    )
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            await consumer.start()
            consumer.assign(list(parts))
            for part, offset in (await consumer.end_offsets(list(parts))).items():
                consumer.seek(part, max(0, offset - 1))
            waiting = set(parts)
            while waiting:
                await consumer.getmany(timeout_ms=100)
                waiting = {part for part in waiting if consumer.highwater(part) is None}
            return {part: int(consumer.highwater(part)) for part in parts}
    except (KafkaError, OSError, TimeoutError) as error:
        raise unreachable(settings, error) from error
    finally:
        await consumer.stop()


async def check_topics(settings: Settings) -> Cluster:
    """Check that all topics exist and fit each other; the one for handed-on events may be missing.

    Raises:
        BrokerError: the brokers cannot be reached.
        TopicError: a topic is missing, or the partitions of two do not agree.
    """
    topics = topics_of(settings)
    info = await describe_topics(settings)
    optional = (topics.hand_over, topics.forget)
    missing = [name for name in topics.all() if name not in info and name not in optional]
    if missing:
        raise TopicError(
            f"the brokers at {', '.join(settings.bootstrap)} lack the topics"
            f" {', '.join(missing)}; `tracker topics` creates them"
        )
    for source, changelog in (
        (topics.events, topics.users_changelog),
        (topics.items, topics.items_changelog),
    ):
        if source == topics.events and info[source].partitions > info[changelog].partitions:
            raise TopicError(
                f"topic {source} has {info[source].partitions} partitions and its changelog"
                f" {changelog} has {info[changelog].partitions}: partitions were added; stop all"
                " workers, and run `tracker move-states`, which moves the states to where their"
                " users belong now"
            )
        if info[source].partitions != info[changelog].partitions:
            raise TopicError(
                f"topic {source} has {info[source].partitions} partitions and its changelog"
                f" {changelog} has {info[changelog].partitions}; they must be equal, because the"
                " state of a partition is kept in the changelog's partition of the same number:"
                " `tracker reset-state --everything` deletes the states and their changelogs, and"
                " `tracker topics` creates them again"
            )
    here, handed = info[topics.events].partitions, info.get(topics.hand_over)
    if handed is not None and handed.partitions != here:
        raise TopicError(
            f"topic {topics.events} has {here} partitions and {topics.hand_over} has"
            f" {handed.partitions}; they must be equal, because an event is handed on to the"
            " partition of the same number: once no worker has unread records in it, delete it,"
            " and `tracker topics` creates it again"
        )
    if handed is None and settings.hand_over == "on" and here > 1:
        log.warning(
            "topic %s does not exist: events outside their user's partition are taken where they"
            " are, and a user may have two states; `tracker topics` creates it",
            topics.hand_over,
        )
    if topics.forget not in info:
        log.warning(
            "topic %s is missing: no user can be forgotten; `tracker topics` creates it, and"
            " workers read it after a restart",
            topics.forget,
        )
    elif info[topics.forget].partitions != info[topics.events].partitions:
        raise TopicError(
            f"topic {topics.forget} has {info[topics.forget].partitions} partitions and"
            f" {topics.events} has {info[topics.events].partitions}; they must be equal: delete"
            f" {topics.forget} when it has no open request, and run `tracker topics`"
        )
    transactions = await supports_transactions(settings)
    if topics.user_keys:
        _check_user_keys(settings, topics, info, transactions)
    return Cluster(topics, info, transactions)


def _check_user_keys(
    settings: Settings, topics: Topics, info: dict[str, TopicInfo], transactions: bool
) -> None:
    """Check that rows of users and their keys can be committed together.

    Raises:
        TopicError: they cannot.
    """
    keys, events = info[topics.user_keys], info[topics.events]
    if keys.partitions != events.partitions:
        raise TopicError(
            f"topic {events.name} has {events.partitions} partitions and {keys.name} has"
            f" {keys.partitions}; they must be equal, because the keys of users are in the"
            " partition of the same number as their rows: `tracker reset-state --everything`"
            " deletes states and keys, and makes the topics again"
        )
    if not transactions:
        raise TopicError(
            f"TRACKER_USER_KEYS is true, and the brokers at {', '.join(settings.bootstrap)} have no"
            " transactions, without which a row could be there and its key not: leave the variable"
            " out, or use brokers with transactions"
        )
