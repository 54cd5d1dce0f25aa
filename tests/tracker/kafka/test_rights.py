"""Which rights are missing, and the line that names them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from tracker.kafka import rights
from tracker.kafka.cluster import BrokerError, unreachable
from tracker.kafka.denials import denial_of
from tracker.kafka.rights import (
    OPERATIONS,
    Right,
    RightsError,
    check_rights,
    denied_now,
    missing_rights,
    rights_of,
)
from tracker.settings import Settings, load_settings

UNTOLD = -(2**31)


def bits(*operations: str) -> int:
    return sum(1 << OPERATIONS[name] for name in operations)


class Brokers:
    """A client whose brokers allow what a test says; of all else they allow everything."""

    def __init__(self) -> None:
        self.topics: dict[str, tuple[int, int]] = {}
        self.group = bits("Read", "Describe")
        self.codes = [0, 0]
        self.cluster = 0
        self.unknown = ""

    def get_random_node(self) -> int:
        return 1

    async def ready(self, node: int) -> bool:
        return True

    async def send(self, node: int, request: Any) -> Any:
        name = type(request).__name__
        if name == self.unknown:
            raise NotImplementedError
        if name == "FindCoordinatorRequest":
            if self.unknown == "coordinators":
                raise IncompatibleBrokerVersion("none")
            code = self.codes[request._coordinator_type]
            return SimpleNamespace(error_code=code, coordinator_id=1)
        if name == "_GroupRequest":
            found: list[dict[str, Any]] = [{"error_code": 0, "authorized_operations": self.group}]
            return SimpleNamespace(to_object=lambda: {"groups": found})
        every = bits("Read", "Write", "Describe", "DescribeConfigs")
        told = [
            {"name": one, "error_code": code, "authorized_operations": allowed}
            for one in request._names
            for code, allowed in [self.topics.get(one, (0, every))]
        ]
        answer = {"topics": told, "cluster_authorized_operations": self.cluster}
        return SimpleNamespace(to_object=lambda: answer)


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Brokers:
    one = Brokers()

    @contextlib.asynccontextmanager
    async def open_client(settings: Settings) -> AsyncIterator[Brokers]:
        yield one

    monkeypatch.setattr(rights, "open_client", open_client)
    return one


@pytest.fixture
def settings() -> Settings:
    return load_settings(
        {},
        name="shop",
        brokers="a:1,b:2",
        security_protocol="SASL_SSL",
        sasl_username="tracker",
        sasl_password="x",
    )


def missing(settings: Settings) -> list[tuple[str, str]]:
    found = asyncio.run(missing_rights(settings, rights_of(settings, "worker")))
    return [(right.operation, right.name) for right in found]


def test_right_that_brokers_deny_is_named_with_the_command_that_grants_it(
    brokers: Brokers, settings: Settings
) -> None:
    assert missing(settings) == []
    asyncio.run(check_rights(settings, "worker"))
    brokers.topics["shop-handover"] = 0, bits("Read", "Describe")
    with pytest.raises(RightsError) as error:
        asyncio.run(check_rights(settings, "worker"))
    assert str(error.value) == (
        "the Kafka brokers at a:1, b:2 do not allow Write on topic shop-handover, which a worker"
        " needs; grant it: kafka-acls.sh --bootstrap-server a:1,b:2 --add --allow-principal"
        " User:tracker --operation Write --topic shop-handover"
    )
    assert denied_now(settings, "worker") == str(error.value)


def test_topic_that_may_not_be_seen_lacks_all_rights_and_a_long_list_has_one_command(
    brokers: Brokers, settings: Settings
) -> None:
    brokers.topics["shop-items"] = 29, UNTOLD
    brokers.topics["shop-forget"] = 29, UNTOLD
    assert missing(settings) == [
        ("Read", "shop-items"), ("Write", "shop-items"),
        ("Read", "shop-forget"), ("Write", "shop-forget"),
    ]  # fmt: skip
    with pytest.raises(RightsError, match=r"grant it: tracker acls worker User:tracker \| sh$"):
        asyncio.run(check_rights(settings, "worker"))


def test_keys_of_users_take_rights_only_of_those_who_have_them(settings: Settings) -> None:
    keyed = settings.model_copy(update={"user_keys": True})
    for role, operations in (
        ("worker", {"Read", "Write", "DescribeConfigs"}),
        ("topics", {"Create", "Describe", "DescribeConfigs"}),
        ("reset-state", {"Create", "Delete", "DescribeConfigs"}),
        ("mend-times", {"Read"}),
        ("export", {"Read"}),
        ("producer", set()),
        ("subscriber", set()),
    ):
        mine = {r.operation for r in rights_of(keyed, role) if r.name == "shop-user-keys"}  # type: ignore[arg-type]
        assert mine == operations
        assert not [r for r in rights_of(settings, role) if r.name == "shop-user-keys"]  # type: ignore[arg-type]


def test_what_is_allowed_on_a_hidden_topic_but_to_see_it_counts_as_given(
    brokers: Brokers, settings: Settings
) -> None:
    brokers.topics["shop-users-changelog"] = 29, UNTOLD
    assert missing(settings) == [
        ("Read", "shop-users-changelog"),
        ("Write", "shop-users-changelog"),
    ]


def test_who_may_create_any_topic_needs_no_right_on_one(
    brokers: Brokers, settings: Settings
) -> None:
    every = {right.name for right in rights_of(settings, "reset-state")}
    most = bits("Read", "Write", "Delete", "Describe", "DescribeConfigs")
    brokers.topics = dict.fromkeys(every, (0, most))
    with pytest.raises(RightsError, match="Create on topic shop-users-changelog"):
        asyncio.run(check_rights(settings, "reset-state"))
    asyncio.run(check_rights(settings, "topics"))  # all are there
    brokers.cluster = bits("Create", "Describe")
    asyncio.run(check_rights(settings, "reset-state"))


def test_rights_of_a_replay_are_on_both_trackers_and_the_command_names_the_live_one(
    brokers: Brokers, settings: Settings
) -> None:
    with pytest.raises(ValueError, match="name is expected"):
        rights_of(settings, "replay")
    rights = rights_of(settings, "replay", of="live")
    assert {right.name for right in rights if right.resource == "group"} == {"shop", "live"}
    asyncio.run(check_rights(settings, "replay", "live"))  # all topics are there
    brokers.topics = {f"live-{name}": (29, UNTOLD) for name in ("users-changelog", "forget")}
    brokers.topics["live-events"] = 29, UNTOLD
    with pytest.raises(RightsError, match=r"`tracker replay` needs; .* acls --of live replay User"):
        asyncio.run(check_rights(settings, "replay", "live"))


@pytest.mark.parametrize(("codes", "group"), [([30, 0], 0), ([0, 0], bits("Describe"))])
def test_group_without_read_is_named(
    brokers: Brokers, settings: Settings, codes: list[int], group: int
) -> None:
    brokers.codes, brokers.group = codes, group
    assert missing(settings) == [("Read", "shop")]


def test_transactional_ids_that_are_denied_are_named_as_a_prefix(
    brokers: Brokers, settings: Settings
) -> None:
    brokers.codes = [0, 53]
    with pytest.raises(RightsError, match=r"Write on transactional-id shop-\*, .* prefixed$"):
        asyncio.run(check_rights(settings, "worker"))


def test_what_brokers_do_not_say_counts_as_given(brokers: Brokers, settings: Settings) -> None:
    for name in ("_TopicsRequest", "_GroupRequest", "FindCoordinatorRequest", "coordinators"):
        brokers.unknown = name
        assert missing(settings) == []
    brokers.unknown = ""
    brokers.topics = dict.fromkeys(
        (right.name for right in rights_of(settings, "worker") if right.resource == "topic"),
        (0, UNTOLD),
    )
    brokers.topics["shop-items"] = 3, UNTOLD  # it does not exist
    brokers.group = UNTOLD
    brokers.codes = [15, 15]
    assert missing(settings) == []


def test_denial_is_found_below_other_errors_and_is_not_no_answer(settings: Settings) -> None:
    denial = TopicAuthorizationFailedError("shop-items")
    later = RuntimeError("sending")
    later.__context__ = KafkaError("retries")
    later.__context__.__cause__ = denial
    assert denial_of(later) is denial
    text = str(unreachable(settings, later))
    assert "do not allow it" in text
    assert "shop-items" in text
    assert "tracker acls ROLE PRINCIPAL" in text
    assert "no answer" not in text
    assert denial_of(KafkaError()) is None
    assert denial_of(TransactionalIdAuthorizationFailed()) is not None
    assert "no answer" in str(unreachable(settings, KafkaError("away")))


def test_without_a_broker_nothing_is_said_of_rights(settings: Settings) -> None:
    away = load_settings({}, brokers="127.0.0.1:1")
    assert denied_now(away, "worker") == ""
    with pytest.raises(BrokerError):
        asyncio.run(missing_rights(away, [Right("topic", "t", "Read")]))
