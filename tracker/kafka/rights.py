"""Rights on a cluster with access control: the fewest of each role, and which are missing."""

import asyncio
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request
from aiokafka.protocol.coordination import FindCoordinatorRequest

from tracker.explained import Explained
from tracker.kafka.cluster import BrokerError, group_of, open_client, topics_of
from tracker.kafka.topic_ids import ready_node, topic_operations
from tracker.settings import Settings

Resource = Literal["topic", "group", "transactional-id"]
Role = Literal["worker", "producer", "subscriber", "topics", "forget", "reset"]
ROLES: tuple[Role, ...] = get_args(Role)

OPERATIONS = {
    "Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8,
    "DescribeConfigs": 10,
}  # fmt: skip
"""Kafka's numbers of operations. Source: org.apache.kafka.common.acl.AclOperation."""

GROUP_DENIED, ID_DENIED = 30, 53
"""Kafka's error codes GROUP_AUTHORIZATION_FAILED and TRANSACTIONAL_ID_AUTHORIZATION_FAILED."""

UNKNOWN_REQUEST = (NotImplementedError, IncompatibleBrokerVersion)
"""Errors of aiokafka if a broker does not know a request, or not in this version."""

GROUP, TRANSACTION = 0, 1
"""Sorts of coordinators."""

MOST_COMMANDS = 3
"""Missing rights up to which their commands are in a message."""

ASK_SECONDS = 5.0
"""Maximum time in which a worker that ends asks which right is missing."""


class RightsError(Explained):
    """The brokers do not allow what a role needs."""


@dataclass(frozen=True)
class Right:
    """One operation on one resource; `prefixed` if the name is the beginning of several.

    `Read` and `Write` include `Describe` in Kafka.
    """

    resource: Resource
    name: str
    operation: str
    prefixed: bool = False

    def command(self, brokers: str, principal: str) -> str:
        """Return the line of Kafka's own tool that grants the right.

        Args:
            brokers: HOST:PORT, separated by commas.
            principal: who gets it, as `User:tracker`.
        """
        words = [
            "kafka-acls.sh", "--bootstrap-server", brokers, "--add",
            "--allow-principal", principal, "--operation", self.operation,
            f"--{self.resource}", self.name,
        ]  # fmt: skip
        if self.prefixed:
            words += ["--resource-pattern-type", "prefixed"]
        return shlex.join(words)


def rights_of(settings: Settings, role: Role, group: str = "") -> list[Right]:
    """Return the rights of a role.

    Args:
        settings: its name is the prefix of topics and group.
        role: `worker`; `producer` of events; `subscriber` to recommendations; and the commands
            `topics`, `forget` and `reset-state --everything`.
        group: consumer group of the subscriber; by default any that begins with the name.
    """
    names = topics_of(settings)

    def on(operations: str, *topics: str) -> list[Right]:
        return [Right("topic", name, word) for name in topics for word in operations.split()]

    if role == "worker":
        rights = on("Read", names.events) + on("Write", names.recommendations, names.rejected)
        rights += on(
            "Read Write", names.items, names.users_changelog, names.items_changelog,
            names.hand_over, names.forget,
        )  # fmt: skip
        rights += on("Read Write", names.user_keys) if names.user_keys else []
        rights.append(Right("group", group_of(settings), "Read"))
        rights.append(Right("transactional-id", f"{settings.name}-", "Write", prefixed=True))
        return rights
    if role == "producer":
        return on("Write", names.events)
    if role == "subscriber":
        readers = Right("group", group or f"{settings.name}-", "Read", prefixed=not group)
        return [*on("Read", names.recommendations), readers]
    rights = on("Describe DescribeConfigs", *names.all())
    if role == "topics":
        return on("Create", *names.all()) + rights
    if role == "forget":
        return on("Read Write", names.forget) + on("DescribeConfigs", *names.all())
    own = [names.users_changelog, names.items_changelog, names.items, names.hand_over]
    own += [names.user_keys] if names.user_keys else []
    rights += on("Create Delete", *own) + on("Read Write", names.users_changelog, names.forget)
    return [*rights, Right("group", group_of(settings), "Describe")]


class _GroupRequestV3(DescribeGroupsRequest_v3):
    RESPONSE_TYPE = DescribeGroupsResponse_v3  # aiokafka 0.14 has that of version 2 here


class _GroupRequest(Request[_GroupRequestV3]):
    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_GroupRequestV3]) -> _GroupRequestV3:
        return request_struct_class([self._group], True)


async def missing_rights(settings: Settings, rights: Sequence[Right]) -> list[Right]:
    """Return those of the rights that we have not, by the answer of the brokers.

    A right of which the brokers say nothing counts as given: of topics that do not exist, and of
    brokers that are older, or have no access control.

    Raises:
        BrokerError: the brokers cannot be reached.
    """
    topics = list(dict.fromkeys(right.name for right in rights if right.resource == "topic"))
    async with open_client(settings) as client:
        allowed = await topic_operations(client, topics)
        missing = []
        for right in rights:
            if right.resource == "topic":
                bits = allowed.get(right.name)
                bits = bits if not bits else _told(bits)
            elif right.resource == "group":
                bits = await _group_operations(client, right.name)
            else:
                code, _ = await _coordinator(client, f"{right.name}probe", TRANSACTION)
                bits = 0 if code == ID_DENIED else None
            if bits is not None and not bits >> OPERATIONS[right.operation] & 1:
                missing.append(right)
    return missing


async def _coordinator(client: AIOKafkaClient, key: str, sort: int) -> tuple[int, int]:
    """Return error code and broker of a coordinator; code -1 if brokers cannot say it."""
    try:
        answer = await client.send(await ready_node(client), FindCoordinatorRequest(key, sort))
    except UNKNOWN_REQUEST:
        return -1, -1
    return int(answer.error_code), int(answer.coordinator_id)


async def _group_operations(client: AIOKafkaClient, group: str) -> int | None:
    """Return what is allowed on a group, as bits; None if the brokers do not say it."""
    code, node = await _coordinator(client, group, GROUP)
    if code == GROUP_DENIED:
        return 0
    if code or not await client.ready(node):
        return None
    try:
        answer = (await client.send(node, _GroupRequest(group))).to_object()
    except UNKNOWN_REQUEST:
        return None
    (entry,) = answer["groups"]
    if entry["error_code"] == GROUP_DENIED:
        return 0
    return None if entry["error_code"] else _told(entry["authorized_operations"])


def _told(bits: int) -> int | None:
    """Return bits of operations; None if a broker that shows the resource has not filled them."""
    return bits if bits > 0 and bits >> OPERATIONS["Describe"] & 1 else None


def denied(settings: Settings, role: Role, missing: Sequence[Right]) -> str:
    """Return the line that names the missing rights of a role, and how to grant them."""
    principal = f"User:{settings.sasl_username or 'PRINCIPAL'}"
    names = ", ".join(
        f"{right.operation} on {right.resource} {right.name}{'*' * right.prefixed}"
        for right in missing
    )
    if len(missing) <= MOST_COMMANDS:
        commands = " && ".join(right.command(settings.brokers, principal) for right in missing)
    else:
        commands = f"tracker acls {role} {principal} | sh"
    return (
        f"the Kafka brokers at {', '.join(settings.bootstrap)} do not allow {names}, which a {role}"
        f" needs; grant it: {commands}"
    )


async def check_rights(settings: Settings, role: Role) -> None:
    """Check that a role has all its rights.

    Raises:
        RightsError: some are missing; names them, and the commands that grant them.
        BrokerError: the brokers cannot be reached.
    """
    missing = await missing_rights(settings, rights_of(settings, role))
    if missing:
        raise RightsError(denied(settings, role, missing))


def denied_now(settings: Settings, role: Role) -> str:
    """Return the line about missing rights, asked in a thread; "" if none is missing or told.

    For the last line of a worker whose event loop ends with it.
    """
    lines: list[str] = []

    def ask() -> None:
        try:
            asyncio.run(check_rights(settings, role))
        except RightsError as error:
            lines.append(str(error))
        except BrokerError:
            pass

    thread = threading.Thread(target=ask, name="rights", daemon=True)
    thread.start()
    thread.join(ASK_SECONDS)
    return "".join(lines)
