"""Each role of `tracker acls` on a cluster with access control: its rights are enough, and needed.

A case is a tracker of its own whose user lacks one right of the role. The rights of a worker are
taken away one by one in test_security.
"""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewPartitions
from aiokafka.errors import KafkaError

from tests.brokers import why_no_kafka
from tests.secure_kafka import SecureBroker
from tests.shop import START, build_shop
from tests.worlds import World
from tracker.artifact.artifact import Artifact
from tracker.cli.doctor import check_doctor_rights
from tracker.demo.local import worker_environment
from tracker.events.lines import Line
from tracker.events.wire import Event, encode_event, hash_id
from tracker.explained import Explained
from tracker.kafka.client import send_events, watch
from tracker.kafka.cluster import client_arguments, describe_topics, topics_of
from tracker.kafka.connect import admin_client, producer
from tracker.kafka.forget import SALT_BYTES, new_request
from tracker.kafka.partitioner import partition_of
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kafka.reset import reset_learning, reset_topics
from tracker.kafka.rights import ROLES, Right, Role, check_rights, rights_of
from tracker.kafka.topics import ensure_topics
from tracker.kernels.row_bytes import FORGOTTEN_PREFIX, POSITION_KEY, item_key, user_key
from tracker.lookup.export import export_users
from tracker.lookup.forget import forget_user
from tracker.lookup.mend_times import mend_times
from tracker.lookup.merge_states import merge_states
from tracker.lookup.move_states import move_states
from tracker.lookup.person import export_user
from tracker.lookup.replay import begin_replay, change_over, committed, retire
from tracker.settings import Settings, load_settings
from tracker.store.partition_store import FORMAT, Position, encode_position

pytestmark = [pytest.mark.kafka, pytest.mark.long]

MOST_CASES = 40
"""Rights of a role, and one case more, at most."""

AT_ONCE = 6
"""Cases at the same time: most of it is waiting."""

SECONDS = 60.0
"""Time of what a role does."""

FAR = 4_102_444_800.0
"""A time of the future."""

HASH = FORGOTTEN_PREFIX + bytes(SALT_BYTES) + b"digest"


@dataclass
class Case:
    """A tracker, and a user who has the rights of a role or lacks one of them.

    Attributes:
        settings: of the user.
        everything: of somebody who may do all.
        lacks: the right that is missing; None for nothing.
        artifact: in use.
        folder: for files.
    """

    settings: Settings
    everything: Settings
    lacks: Right | None
    artifact: Artifact
    folder: Path

    @property
    def live(self) -> str:
        """Name of the live tracker of a replay."""
        return f"{self.settings.name}live"


@dataclass(frozen=True)
class Use:
    """What a role does.

    Attributes:
        do: it does all that it ever does.
        command: words of the command line, if it is a command.
        prepare: what is there before, made by somebody who may do all.
        code: exit code of the command.
        keys: whether users have keys.
    """

    do: Callable[[Case], Coroutine[Any, Any, object]]
    command: Callable[[Case], list[str]] | None = None
    prepare: Callable[[Case], Awaitable[object]] = lambda case: ensure_topics(case.everything)
    code: int = 0
    keys: bool = True


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    if (reason := why_no_kafka()) is not None:
        pytest.fail(reason, pytrace=False)
    users = [user_of(role, number) for role in ROLES for number in range(MOST_CASES)]
    with SecureBroker(tmp_path_factory.mktemp("rights") / "kafka", users) as secure:
        yield secure


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    build_shop(root)
    return root


def user_of(role: Role, number: int) -> str:
    return f"{role}{number}"


# What is there before.


async def send(case: Case, *records: tuple[str, bytes | None, bytes | None, int]) -> None:
    """Send records of topic, key, value and partition."""
    async with producer(case.everything) as client:
        for topic, key, value, partition in records:
            await client.send_and_wait(topic, value, key, partition)


async def with_a_list(case: Case) -> None:
    await ensure_topics(case.everything)
    await send(case, (topics_of(case.everything).recommendations, b"ada", b"{}", 0))


async def with_a_row(case: Case) -> None:
    await ensure_topics(case.everything)
    names, key = topics_of(case.everything), user_key(pseudonyms_of(case.everything).of("ada"))
    event = encode_event(Event("ada", "i1", "like", START))
    await send(case, (names.users_changelog, key, b"no row", 0), (names.events, b"ada", event, 0))


async def with_a_forgotten_user(case: Case) -> None:
    await ensure_topics(case.everything)
    changelog = topics_of(case.everything).users_changelog
    await send(case, (changelog, HASH, b'{"at":1.0}', 0))


async def positions(
    settings: Settings, reached: int = 0, **more: Any
) -> list[tuple[str, bytes, bytes, int]]:
    """Return the positions of workers that have applied some events of each partition."""
    names, topics = topics_of(settings), await describe_topics(settings)
    key = topics[names.user_keys].topic_id if names.user_keys else None
    out = []
    for source, changelog in (
        (names.events, names.users_changelog),
        (names.items, names.items_changelog),
    ):
        count = topics[source].partitions
        of_users: dict[str, Any] = {}
        if source == names.events and key is not None:
            of_users = {"user_keys": key, "pseudonyms": pseudonyms_of(settings).fingerprint}
        offset = reached if source == names.events else 0
        position = Position(
            FORMAT, offset, source, topics[source].topic_id, count, transactions=True,
            **of_users, **more,
        )  # fmt: skip
        row = encode_position(position)
        out += [(changelog, POSITION_KEY, row, partition) for partition in range(count)]
    return out


async def with_times_of_the_future(case: Case) -> None:
    await ensure_topics(case.everything)
    world = World.of(case.artifact)
    world.send({"user": 0, "item": "i1", "time": FAR})
    slot = np.array([world.item_slots[hash_id("i1")]])
    row = world.item_states.pack(slot)[0]
    changelog = topics_of(case.everything).items_changelog
    await send(case, (changelog, item_key(hash_id("i1")), row, 0))
    await send(case, *await positions(case.everything, stream_time=FAR))


async def with_a_state_elsewhere(case: Case) -> None:
    await ensure_topics(case.everything)
    world = World.of(case.artifact)
    world.send({"user": 0, "item": "i1", "time": START})
    home = partition_of("u0", 2, "murmur2")
    assert home is not None
    row = world.states.pack(np.arange(1))[0]
    await send(case, (topics_of(case.everything).users_changelog, user_key("u0"), row, 1 - home))


async def with_more_partitions(case: Case) -> None:
    """Two partitions became three; something is owed in each topic."""
    await ensure_topics(case.everything)
    names = topics_of(case.everything)
    user = next(f"u{n}" for n in range(99) if partition_of(f"u{n}", 3, "murmur2") == 2)
    request = msgspec.json.encode(new_request())
    await send(
        case,
        *await positions(case.everything),
        (names.hand_over, b"k", b"handed on by nobody", 0),
        (names.items, None, b"no block", 0),
        (names.forget, user.encode(), request, 0),
    )
    async with admin_client(case.everything) as admin:
        await admin.create_partitions({names.events: NewPartitions(3)})
    while (await describe_topics(case.everything))[names.events].partitions < 3:
        await asyncio.sleep(0.1)


async def with_live_states(case: Case) -> None:
    """Workers have applied the only event that there is."""
    live = case.everything.model_copy(update={"name": case.live})
    await ensure_topics(live)
    events = topics_of(live).events
    event = encode_event(Event("ada", "i1", "like", START))
    await send(case, (events, b"ada", event, 0), *await positions(live, 1))
    group = AIOKafkaConsumer(group_id=case.live, **client_arguments(live))
    await group.start()
    group.assign([TopicPartition(events, 0)])
    await group.commit({TopicPartition(events, 0): 1})
    await group.stop()


# What a role does.


async def produce(case: Case) -> None:
    line = Line("1", encode_event(Event("ada", "i1", "like", START)))
    sent = await send_events(case.settings, iter([line]))
    assert not sent.errors, sent.errors


async def subscribe(case: Case) -> None:
    """Watch by the command, and then by a group of one's own."""
    async with aclosing(watch(case.settings, None, True)) as lists:
        await anext(lists)
    consumer = AIOKafkaConsumer(
        topics_of(case.settings).recommendations,
        group_id=f"{case.settings.name}-pages",
        auto_offset_reset="earliest",
        **client_arguments(case.settings),
    )
    try:
        await consumer.start()
        await consumer.getone()
        await consumer.commit()
    finally:
        await consumer.stop()


async def replay_all(case: Case) -> None:
    """Do all of a replay but for what its worker does: it begins after the only event."""
    new = replaying(case)
    await begin_replay(new, case.live, 1)
    await committed(new, case.live)
    await change_over(new, case.live, await retire(new, case.live, new.name))


def replaying(case: Case) -> Settings:
    return case.settings.model_copy(update={"stream": case.live})


USES: dict[Role, Use] = {
    "producer": Use(produce),
    "subscriber": Use(subscribe,
                      lambda case: ["watch", "--from-beginning", "--count", "1", "--json"],
                      with_a_list),
    "doctor": Use(lambda case: ensure_topics(case.settings, create=False), lambda case: ["doctor"]),
    "topics": Use(lambda case: ensure_topics(case.settings), lambda case: ["topics"],
                  lambda case: asyncio.sleep(0)),
    "forget": Use(lambda case: forget_user(case.settings, "ada", 0.0),
                  lambda case: ["forget", "ada", "--wait", "0"], code=1),  # no worker runs
    "export": Use(
        lambda case: export_users(case.settings, case.artifact, case.folder / "users.parquet"),
        lambda case: ["export", str(case.folder / "users.parquet")]),
    "export-user": Use(lambda case: export_user(case.settings, case.artifact, "ada"),
                       lambda case: ["export-user", "ada"], with_a_row),
    "reset-state": Use(lambda case: reset_topics(case.settings),
                       lambda case: ["reset-state", "--everything", "--yes"],
                       with_a_forgotten_user),
    "reset-learning": Use(lambda case: reset_learning(case.settings),
                          lambda case: ["reset-learning", "--yes"]),
    "mend-times": Use(lambda case: mend_times(case.settings, case.artifact),
                      lambda case: ["mend-times", "--yes"], with_times_of_the_future),
    "merge-states": Use(lambda case: merge_states(case.settings, case.artifact),
                        lambda case: ["merge-states", "--yes"], with_a_state_elsewhere,
                        keys=False),
    "move-states": Use(lambda case: move_states(case.settings),
                       lambda case: ["move-states", "--yes"], with_more_partitions, keys=False),
    "replay": Use(replay_all, lambda case: ["replay", "--of", case.live], with_live_states),
}  # fmt: skip


def rights_of_case(settings: Settings, role: Role) -> list[Right]:
    return rights_of(settings, role, of=f"{settings.name}live")


def own_rights(settings: Settings, role: Role) -> list[Right]:
    """Return the rights of a role that are not those of the worker that it runs, too."""
    rights = rights_of_case(settings, role)
    if role not in ("doctor", "replay"):
        return rights
    if role == "replay":
        settings = settings.model_copy(update={"stream": f"{settings.name}live"})
    return [right for right in rights if right not in rights_of(settings, "worker")]


def cases_of(
    broker: SecureBroker, role: Role, prefix: str, artifacts: Path, folder: Path
) -> list[Case]:
    """Return a case with all rights and one for each right that is missing; rights are given."""
    key = folder / "key"
    key.write_bytes(b"k" * 32)
    keyed: dict[str, Any] = {}
    if USES[role].keys:
        keyed = {"pseudonym_key_file": key, "user_keys": True}
    artifact = Artifact.load(artifacts, device="cpu")

    def settings_of(number: int, **more: Any) -> Settings:
        return load_settings(
            {}, name=f"{prefix}{role}{number}", artifacts=str(artifacts), web_port=0,
            event_partitions=1 if USES[role].keys else 2, item_partitions=1,
            data_dir=folder / f"data{number}", **keyed, **more,
        )  # fmt: skip

    count = 1 + len(own_rights(settings_of(0), role))
    assert count <= MOST_CASES
    cases, given = [], {}
    for number in range(count):
        user = user_of(role, number)
        settings = settings_of(number, **broker.settings("PLAIN", user))
        lacks = own_rights(settings, role)[number - 1] if number else None
        given[user] = [right for right in rights_of_case(settings, role) if right != lacks]
        here = folder / str(number)
        here.mkdir()
        everything = settings_of(number, brokers=broker.address)
        cases.append(Case(settings, everything, lacks, artifact, here))
    broker.grant_all(given)
    return cases


async def refusal(role: Role, case: Case) -> str:
    """Return the line by which a role is told that it lacks a right; "" if it is not."""
    if role == "doctor":
        check = await check_doctor_rights(case.settings)
        return check.text if check.state == "note" else ""
    if role not in ("producer", "subscriber"):  # nothing asks for their rights before
        settings = replaying(case) if role == "replay" else case.settings
        try:
            await check_rights(settings, role, case.live if role == "replay" else "")
        except Explained as error:
            return str(error)
    try:
        async with asyncio.timeout(SECONDS):
            await USES[role].do(case)
    except Explained as error:
        return str(error)
    except KafkaError as error:  # of a client of one's own
        return f"{type(error).__name__} {error}"
    return ""


async def failure(role: Role, case: Case) -> str:
    """Return how a role fails that does not ask for its rights before; "" if it does not."""
    try:
        async with asyncio.timeout(SECONDS):
            await USES[role].do(case)
    except (Explained, KafkaError, AssertionError) as error:
        return f"{type(error).__name__} {error}"
    return ""


def test_every_role_but_that_of_a_worker_is_tried_here() -> None:
    assert {"worker", *USES} == set(ROLES)


@pytest.mark.parametrize("role", USES)
def test_role_works_with_its_rights_and_not_without_one_of_them_which_it_names(
    broker: SecureBroker, role: Role, prefix: str, artifacts: Path, tmp_path: Path
) -> None:
    use = USES[role]
    whole, *others = cases_of(broker, role, prefix, artifacts, tmp_path)
    wrong: list[str] = []

    async def without_one(limit: asyncio.Semaphore, case: Case) -> None:
        async with limit:
            await use.prepare(case)
            told, failed = await refusal(role, case), await failure(role, case)
            right = case.lacks
            assert right is not None
            what = f"{right.operation} on {right.resource} {right.name}"
            print(f"{role} without {what}: {told} | {failed}")  # noqa: T201
            if right.name not in told or "\n" in told:
                wrong.append(f"without {what} it says {told!r}")
            if not failed:
                wrong.append(f"it needs no {what}")

    async def go() -> None:
        await use.prepare(whole)
        limit = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*map(partial(without_one, limit), others))

    asyncio.run(go())
    if use.command is None or role == "subscriber":
        asyncio.run(use.do(whole))
    if use.command is not None:
        run_command(role, whole)
    assert wrong == []


def run_command(role: Role, case: Case) -> None:
    """Run the command of a role as a user who has its rights and no others."""
    use = USES[role]
    assert use.command is not None
    words = use.command(case)
    for more in ([], ["--change-over"]) if role == "replay" else ([],):
        done = subprocess.run(
            [sys.executable, "-m", "tracker", *words, *more],
            env=worker_environment(case.settings),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == use.code, f"{done.stdout}\n{done.stderr}"
        assert "do not allow" not in done.stdout + done.stderr
