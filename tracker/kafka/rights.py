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
from tracker.kafka.topic_ids import cluster_operations, ready_node, topic_operations
from tracker.settings import Settings

Resource = Literal["topic", "group", "transactional-id"]
Role = Literal[
    "worker", "producer", "subscriber", "doctor", "topics", "forget", "export", "export-user",
    "reset-state", "reset-learning", "mend-times", "merge-states", "move-states", "replay",
]  # fmt: skip
ROLES: tuple[Role, ...] = get_args(Role)

PROGRAMS = ("worker", "producer", "subscriber")
"""Roles that are no commands of their own."""

OPERATIONS = {
    "Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8,
    "DescribeConfigs": 10,
}  # fmt: skip
"""Kafka's numbers of operations. Source: org.apache.kafka.common.acl.AclOperation."""

WITH_DESCRIBE = ("Read", "Write", "Delete", "Alter")
"""Operations that include `Describe`. Source: org.apache.kafka.server.authorizer.Authorizer."""

CREATE = "Create"

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

    Some operations include `Describe` in Kafka: see WITH_DESCRIBE.
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


def rights_of(settings: Settings, role: Role, group: str = "", of: str = "") -> list[Right]:
    """Return the rights of a role.

    Args:
        settings: its name is the prefix of topics and group.
        role: `worker`; `producer` of events; `subscriber` to recommendations; or a command.
        group: consumer group of the subscriber; by default any that begins with the name.
        of: name of the live tracker, for the role `replay`.

    Raises:
        ValueError: the role is `replay`, and the live tracker has no name.
    """
    names = topics_of(settings)
    keys = [names.user_keys] if names.user_keys else []
    changelogs = [names.users_changelog, names.items_changelog, *keys]
    see_group = Right("group", group_of(settings), "Describe")
    no_worker_runs = [*_on("Describe", names.events), see_group]
    fences = [Right("transactional-id", f"{settings.name}-", "Write", prefixed=True)]
    own = [*changelogs, names.items, names.hand_over]
    if role == "worker":
        rights = [
            *_on("Read", names.events),
            *_on("Write", names.recommendations, names.rejected),
            *_on("Read Write", *own, names.forget),
            *_on("DescribeConfigs", *changelogs),
            Right("group", group_of(settings), "Read"),
            *fences,
        ]
    elif role == "producer":
        rights = _on("Write", names.events)
    elif role == "subscriber":
        readers = Right("group", group or f"{settings.name}-", "Read", prefixed=not group)
        rights = [*_on("Read", names.recommendations), readers]
    elif role == "doctor":
        rights = rights_of(settings, "worker") + _on("DescribeConfigs", *names.all())
    elif role == "topics":
        rights = _on("Create Describe DescribeConfigs", *names.all())
    elif role == "forget":
        rights = _on("Read Write", names.forget) + _on("DescribeConfigs", *names.all())
    elif role == "export":
        rights = _on("Read", names.users_changelog, *keys)
    elif role == "export-user":
        sent = [names.events, names.recommendations, names.rejected, names.hand_over]
        rights = _on("Read", *sent, names.users_changelog, *keys)
    elif role == "reset-state":
        rights = [
            *_on("Describe DescribeConfigs", *names.all()),
            *_on("Create Delete", *own),
            *_on("Read Write", names.users_changelog, names.forget),
            *no_worker_runs,
        ]
    elif role == "reset-learning":
        rights = [*_on("Write", names.users_changelog), see_group]
    elif role == "mend-times":
        tables = [names.users_changelog, names.items_changelog]
        rights = [*_on("Read Write", *tables), *_on("Read", names.items, *keys)]
        rights += no_worker_runs + fences
    elif role == "merge-states":
        rights = [*_on("Read Write", names.users_changelog), *_on("Write", names.hand_over)]
        rights += no_worker_runs + fences
    elif role == "move-states":
        grown = [names.users_changelog, names.hand_over, names.forget]
        rights = _on("Read Write Alter", *grown)
        rights += _on("Read Write", names.items, names.items_changelog) + no_worker_runs + fences
    else:
        rights = _replay(settings, of, [*own, names.forget])
    return _fewest(rights)


def _replay(settings: Settings, of: str, topics: list[str]) -> list[Right]:
    """Return the rights of a replay: those of a worker, what it makes, and those on live states."""
    if not of:
        raise ValueError("a replay is of a live tracker; its name is expected")
    settings = settings.model_copy(update={"stream": settings.stream or of})
    live = topics_of(settings.model_copy(update={"name": of}))
    return [
        *rights_of(settings, "worker"),
        *_on("Create", *topics),
        *_on("DescribeConfigs", *topics_of(settings).all()),
        *_on("Read Write", live.users_changelog, live.items_changelog),
        *_on("Read", live.forget, *([live.user_keys] if live.user_keys else [])),
        Right("group", of, "Describe"),
        Right("transactional-id", f"{of}-", "Write", prefixed=True),
    ]


def _on(operations: str, *topics: str) -> list[Right]:
    return [Right("topic", name, word) for name in topics for word in operations.split()]


def _fewest(rights: Sequence[Right]) -> list[Right]:
    """Return rights without repeats, and without `Describe` where another one includes it."""
    others = {(right.resource, right.name) for right in rights if right.operation in WITH_DESCRIBE}
    return [
        right
        for right in dict.fromkeys(rights)
        if right.operation != "Describe" or (right.resource, right.name) not in others
    ]


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
                if bits == 0 and right.operation not in (*WITH_DESCRIBE, "Describe"):
                    bits = None  # the topic is hidden, and what else is allowed on it
                bits = bits if not bits else _told(bits)
            elif right.resource == "group":
                bits = await _group_operations(client, right.name)
            else:
                code, _ = await _coordinator(client, f"{right.name}probe", TRANSACTION)
                bits = 0 if code == ID_DENIED else None
            if bits is not None and not bits >> OPERATIONS[right.operation] & 1:
                missing.append(right)
        # Who may create any topic needs no right on one.
        if any(right.operation == CREATE for right in missing):
            creates = await cluster_operations(client) >> OPERATIONS[CREATE] & 1
            missing = [right for right in missing if not (creates and right.operation == CREATE)]
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


def denied(settings: Settings, role: Role, missing: Sequence[Right], of: str = "") -> str:
    """Return the line that names the missing rights of a role, and how to grant them."""
    principal = f"User:{settings.sasl_username or 'PRINCIPAL'}"
    names = ", ".join(
        f"{right.operation} on {right.resource} {right.name}{'*' * right.prefixed}"
        for right in missing
    )
    if len(missing) <= MOST_COMMANDS:
        commands = " && ".join(right.command(settings.brokers, principal) for right in missing)
    else:
        live = f" --of {shlex.quote(of)}" if of else ""
        commands = f"tracker acls{live} {role} {principal} | sh"
    who = f"a {role}" if role in PROGRAMS else f"`tracker {role}`"
    return (
        f"the Kafka brokers at {', '.join(settings.bootstrap)} do not allow {names}, which {who}"
        f" needs; grant it: {commands}"
    )


async def check_rights(settings: Settings, role: Role, of: str = "") -> None:
    """Check that a role has all its rights.

    Args:
        settings: where the brokers are.
        role: as in `rights_of`.
        of: name of the live tracker, for the role `replay`.

    Raises:
        RightsError: some are missing; names them, and the commands that grant them.
        BrokerError: the brokers cannot be reached.
    """
    missing = await missing_rights(settings, rights_of(settings, role, of=of))
    if role in ("topics", "replay"):  # topics that exist need no right to be created
        missing = [right for right in missing if right.operation != CREATE]
    if missing:
        raise RightsError(denied(settings, role, missing, of))


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
