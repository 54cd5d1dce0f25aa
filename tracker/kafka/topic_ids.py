"""Partition counts and ids of topics, and what is allowed on them, by a request of our own."""

import uuid
from collections.abc import Sequence

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, NodeNotReadyError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

UNKNOWN_TOPIC = 3
"""Kafka's error code UNKNOWN_TOPIC_OR_PARTITION."""

TOPIC_DENIED = 29
"""Kafka's error code TOPIC_AUTHORIZATION_FAILED."""


class _Uuid(AbstractType[uuid.UUID]):
    @classmethod
    def encode(cls, value: uuid.UUID | None) -> bytes:
        return (value or uuid.UUID(int=0)).bytes

    @classmethod
    def decode(cls, data: object) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))  # type: ignore[attr-defined]


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestV10(RequestStruct):
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid),
                ("name", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicsRequest(Request[_MetadataRequestV10]):
    API_KEY = 3

    def __init__(
        self, names: Sequence[str], operations: bool = False, of_cluster: bool = False
    ) -> None:
        self._names = names
        self._operations = operations
        self._of_cluster = of_cluster

    def build(self, request_struct_class: type[_MetadataRequestV10]) -> _MetadataRequestV10:
        topics: list[tuple[None, str, dict[int, object]]] = [
            (None, name, {}) for name in self._names
        ]
        return request_struct_class(topics, False, self._of_cluster, self._operations, {})


async def ready_node(client: AIOKafkaClient) -> int:
    """Return a broker to which the client is connected.

    Raises:
        KafkaError: there is none.
    """
    node = client.get_random_node()
    if node is None or not await client.ready(node):
        raise NodeNotReadyError("no broker of the cluster can be reached")
    return int(node)


async def topic_operations(client: AIOKafkaClient, names: Sequence[str]) -> dict[str, int]:
    """Return what is allowed on topics, as a bit for each of Kafka's operations.

    Args:
        client: connected client.
        names: names of topics; those that do not exist are left out.

    Returns:
        by name; nothing if the brokers do not say it, as those older than Kafka 2.8.

    Raises:
        KafkaError: no broker can be reached.
    """
    try:
        response = await client.send(await ready_node(client), _TopicsRequest(names, True))
    except NotImplementedError:
        return {}
    topics = response.to_object()["topics"]
    return {
        topic["name"]: 0 if topic["error_code"] == TOPIC_DENIED else topic["authorized_operations"]
        for topic in topics
        if topic["error_code"] in (0, TOPIC_DENIED)
    }


async def cluster_operations(client: AIOKafkaClient) -> int:
    """Return what is allowed on the cluster, as bits; 0 if the brokers do not say it.

    Raises:
        KafkaError: no broker can be reached.
    """
    try:
        response = await client.send(await ready_node(client), _TopicsRequest([], of_cluster=True))
    except NotImplementedError:
        return 0
    return max(0, int(response.to_object()["cluster_authorized_operations"]))


async def read_topics(client: AIOKafkaClient, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return partition count and id of those topics that exist.

    Args:
        client: connected client.
        names: names of topics; the request creates none.

    Returns:
        by name: (partitions, id as text); the id is empty if the broker gives none.

    Raises:
        KafkaError: the broker refuses, or no broker can be reached.
    """
    node = await ready_node(client)
    try:
        response = await client.send(node, _TopicsRequest(names))
    except NotImplementedError:  # older than Kafka 2.8: there are no topic ids
        response = await client.send(
            node, MetadataRequest(list(names), allow_auto_topic_creation=False)
        )
    topics: dict[str, tuple[int, str]] = {}
    for topic in response.to_object()["topics"]:
        code = topic["error_code"]
        if code == UNKNOWN_TOPIC:
            continue
        name = topic.get("name") or topic.get("topic")
        if code:
            error: type[KafkaError] = for_code(code)
            raise error(f"topic {name}")
        uid = topic.get("topic_id")
        topics[name] = (len(topic["partitions"]), "" if uid is None or uid.int == 0 else str(uid))
    return topics
