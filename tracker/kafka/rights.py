"""Rights on a cluster with access control: the fewest with which each role works."""

import shlex
from dataclasses import dataclass
from typing import Literal, get_args

from tracker.kafka.cluster import group_of, topics_of
from tracker.settings import Settings

Resource = Literal["topic", "group", "transactional-id"]
Role = Literal["worker", "producer", "subscriber", "topics", "forget", "reset"]
ROLES: tuple[Role, ...] = get_args(Role)


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
    own = (names.users_changelog, names.items_changelog, names.items, names.hand_over)
    rights += on("Create Delete", *own) + on("Read Write", names.users_changelog, names.forget)
    return [*rights, Right("group", group_of(settings), "Describe")]
