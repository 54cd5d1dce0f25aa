"""A whole worker on a cluster with TLS, SASL and access control, with the fewest rights."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.brokers import why_no_kafka
from tests.secure_kafka import SecureBroker
from tests.shop import START, build_shop
from tests.states import read_rows
from tracker.demo.local import (
    answers_ok,
    until_ready,
    worker_environment,
    worker_process,
)
from tracker.demo.processes import ChildProcess, ProcessError, free_port
from tracker.events.lines import Line
from tracker.events.wire import Event, encode_event
from tracker.kafka.client import read_topic, send_events
from tracker.kafka.cluster import BrokerError, check_topics, topics_of
from tracker.kafka.connect import producer
from tracker.kafka.partitioner import partition_of
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kafka.rights import Right, rights_of
from tracker.kafka.topics import ensure_topics
from tracker.lookup.forget import forget_user
from tracker.settings import Settings, load_settings

pytestmark = [pytest.mark.kafka, pytest.mark.long]

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "mutual TLS")
SECONDS = 60.0
DENIED_SECONDS = 40.0
SAID_SECONDS = 8.0
"""Time that a worker has left to do all, once its log says that it was denied a right."""
DENIALS = ("AuthorizationFailed", "Not authorized")

RUNNING_SECONDS = 40.0
"""Time in which a running worker names a right that was taken from it: it looks each 10 s."""

LANES = 3
"""Workers that lose rights at the same time, each under its own name: most of it is waiting."""

ALLOWED_SECONDS = 180.0
"""Time to do all, with all rights, on a machine that does other things too."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    if (reason := why_no_kafka()) is not None:
        pytest.fail(reason, pytrace=False)
    with SecureBroker(tmp_path_factory.mktemp("secure") / "kafka") as secure:
        secure.add_user()
        yield secure


def settings_of(broker: SecureBroker, mechanism: str, name: str, folder: Path) -> Settings:
    """Return settings of users who have pseudonyms and keys: all topics are there."""
    build_shop(folder / "artifacts")
    key = folder / "pseudonyms"
    key.write_bytes(b"k" * 32)
    return load_settings(
        {},
        name=name,
        artifacts=str(folder / "artifacts"),
        data_dir=folder / "data",
        web_port=free_port(),
        event_partitions=2,
        item_partitions=1,
        commit_interval_seconds=0.2,
        pseudonym_key_file=key,
        user_keys=True,
        **broker.settings(mechanism),
    )


def by_anonymous(broker: SecureBroker, settings: Settings) -> Settings:
    """Return settings of somebody who may do all."""
    return load_settings(
        {}, name=settings.name, brokers=broker.address, event_partitions=2, item_partitions=1,
        pseudonym_key_file=settings.pseudonym_key_file, user_keys=True,
    )  # fmt: skip


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_commands_and_a_worker_reach_a_cluster_by_each_mechanism(
    broker: SecureBroker, mechanism: str, prefix: str, tmp_path: Path
) -> None:
    broker.renew_token()
    settings = settings_of(broker, mechanism, prefix, tmp_path)
    own = [*rights_of(settings, "topics"), *rights_of(settings, "worker")]
    broker.grant([*own, *rights_of(settings, "producer"), *rights_of(settings, "subscriber")])

    async def go() -> None:
        await ensure_topics(settings)
        assert (await check_topics(settings)).transactions
        line = Line("1", encode_event(Event("ada", "i1", "like", START)))
        with worker_process(settings, tmp_path / "worker.log") as worker:
            await until_ready(worker, settings)
            assert (await send_events(settings, iter([line]))).confirmed == 1
            await list_of(settings, "ada", worker)
            assert worker.stop(30) == 0

    asyncio.run(go())


async def list_of(settings: Settings, user: str, worker: ChildProcess | None = None) -> None:
    """Wait for a list of a user."""
    topic, name = topics_of(settings).recommendations, pseudonyms_of(settings).of(user)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        async for record in read_topic(settings, topic):
            if record.key == name.encode():
                return
        if worker is not None:
            worker.check()
        await asyncio.sleep(0.5)
    raise TimeoutError(f"no list of {user}")


class Limit:
    """The time that a worker has to do something; short once it was denied a right."""

    def __init__(self, worker: ChildProcess, seconds: float) -> None:
        self.worker = worker
        self.ends = time.monotonic() + seconds
        self.is_denied = False

    def is_over(self) -> bool:
        """Return whether the time has passed."""
        if not self.is_denied and any(word in self.worker.tail(200) for word in DENIALS):
            self.is_denied = True
            self.ends = min(self.ends, time.monotonic() + SAID_SECONDS)
        return time.monotonic() > self.ends


UNCHECKED = """
import sys
from tracker.kafka import rights
from tracker.worker import plane, run

async def all_is_allowed(settings, role):
    pass

plane.check_rights = run.check_rights = all_is_allowed
from tracker.cli.main import cli
sys.argv = ["tracker", "worker"]
cli()
"""
"""A worker that does not ask which rights it has."""


def unchecked_worker(settings: Settings, log: Path) -> ChildProcess:
    """Start a worker that goes on until it cannot do something."""
    command = [sys.executable, "-c", UNCHECKED]
    return ChildProcess("unchecked worker", command, log, worker_environment(settings))


async def does_all(
    broker: SecureBroker, settings: Settings, log: Path, seconds: float = DENIED_SECONDS
) -> str:
    """Let a worker do everything that it ever does; return what it failed to do, or ""."""
    super_user = by_anonymous(broker, settings)
    names = topics_of(settings)

    def named(user: str) -> bytes:
        return pseudonyms_of(settings).of(user).encode()

    elsewhere = f"v{time.monotonic_ns()}"  # of whom nothing is kept from the time before
    home = partition_of(elsewhere, 2, "murmur2")
    assert home is not None
    items = (await read_rows(super_user)).items
    with unchecked_worker(settings, log) as worker:
        limit = Limit(worker, seconds)
        url = f"http://127.0.0.1:{settings.web_port}/readyz"
        while not await asyncio.to_thread(answers_ok, url):
            if worker.returncode is not None:
                return f"it ended: {worker.tail(3)}"
            if limit.is_over():
                return f"it is not ready{', and says why' * limit.is_denied}"
            await asyncio.sleep(0.3)
        user = f"u{time.monotonic_ns()}"
        async with producer(super_user) as client:
            own = partition_of(user, 2, "murmur2") or 0
            for value, partition in (
                (encode_event(Event(user, "i1", "like", START)), own),
                (b"not an event", own),
                (encode_event(Event(elsewhere, "i2", "like", START)), 1 - home),
            ):
                key = elsewhere if elsewhere.encode() in value else user
                await client.send_and_wait(names.events, value, key.encode(), partition)
        limit = Limit(worker, seconds)
        missing = "?"
        while not limit.is_over():
            if worker.returncode is not None:
                return f"it ended: {worker.tail(3)}"
            counts = {}
            try:
                rows = await read_rows(super_user)
                for topic in (names.recommendations, names.rejected):
                    keys = [record.key async for record in read_topic(super_user, topic)]
                    counts[topic] = keys
            except BrokerError:  # it has much to do: look again
                continue
            missing = ", ".join(
                what
                for what, is_there in (
                    ("a list", named(user) in counts[names.recommendations]),
                    ("a rejected record", user.encode() in counts[names.rejected]),
                    ("a state", (own, named(user)) in rows.users),
                    (
                        "a state of an event in the wrong partition",
                        (home, named(elsewhere)) in rows.users,
                    ),
                    ("states of items", rows.items != items),
                )
                if not is_there
            )
            if not missing:
                break
            await asyncio.sleep(0.5)
        if missing:
            return f"it did not write {missing}{', and says why' * limit.is_denied}"
        report = await forget_user(super_user, user, seconds / 2)
        if not report.complete:
            return "it did not forget a user"
        code = await asyncio.to_thread(worker.stop, 30)
        return "" if code == 0 else f"it ended with {code}"


Lane = Callable[[Settings, list[Right], Path], Awaitable[None]]


async def in_lanes(broker: SecureBroker, name: str, folder: Path, lane: Lane) -> None:
    """Divide the rights of a worker between workers that know nothing of each other."""
    lanes = []
    for number in range(LANES):
        settings = settings_of(broker, "SCRAM-SHA-512", f"{name}{number}", folder / str(number))
        rights = rights_of(settings, "worker")
        broker.grant(rights)
        await ensure_topics(by_anonymous(broker, settings))
        lanes.append(lane(settings, rights[number::LANES], folder / str(number)))
    await asyncio.gather(*lanes)


@pytest.mark.timeout(900)
def test_worker_works_with_the_rights_that_the_command_names_and_not_without_one_of_them(
    broker: SecureBroker, prefix: str, tmp_path: Path
) -> None:
    failures: dict[Right, str] = {}
    allowed: list[str] = []

    async def lane(settings: Settings, rights: list[Right], folder: Path) -> None:
        # First with all rights: then there are states, which each later worker has to read.
        allowed.append(await does_all(broker, settings, folder / "worker.log", ALLOWED_SECONDS))
        for number, right in enumerate(rights):
            new = settings.model_copy(update={"data_dir": folder / f"data-{number}"})
            await asyncio.to_thread(broker.revoke, right)
            failures[right] = await does_all(broker, new, folder / f"worker-{number}.log")
            await asyncio.to_thread(broker.grant, [right])

    asyncio.run(in_lanes(broker, prefix, tmp_path, lane))
    for right, failure in failures.items():
        print(f"without {right.operation} on {right.resource} {right.name}: {failure[-300:]}")  # noqa: T201
    assert allowed == [""] * LANES
    with_keys = load_settings({}, name=prefix).model_copy(update={"user_keys": True})
    assert len(failures) == len(rights_of(with_keys, "worker"))
    assert [right for right, failure in failures.items() if not failure] == []


@pytest.mark.timeout(900)
def test_worker_without_one_of_its_rights_names_it_and_the_command_that_grants_it(
    broker: SecureBroker, prefix: str, tmp_path: Path
) -> None:
    silent: list[str] = []

    async def says(worker: ChildProcess, command: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while command not in worker.log.read_text():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.2)
        return True

    async def lane(settings: Settings, rights: list[Right], folder: Path) -> None:
        principal = f"User:{settings.sasl_username}"
        running, starting = folder / "running.log", folder / "starting.log"
        worker = worker_process(settings, running)
        try:
            for right in rights:
                command = right.command(settings.brokers, principal)
                with contextlib.suppress(ProcessError):  # it has ended for the right before
                    await until_ready(worker, settings)
                if worker.returncode is not None:
                    worker = worker_process(settings, running)
                    await until_ready(worker, settings)
                await asyncio.to_thread(broker.revoke, right)
                if not await says(worker, command, RUNNING_SECONDS):
                    silent.append(f"taken while it ran: {command}: {worker.tail(5)}")
                await asyncio.to_thread(broker.grant, [right])
        finally:
            await asyncio.to_thread(worker.stop, 30)
        for right in rights:
            command = right.command(settings.brokers, principal)
            await asyncio.to_thread(broker.revoke, right)
            with worker_process(settings, starting) as refused:
                if await asyncio.to_thread(refused.wait, DENIED_SECONDS) != 1:
                    silent.append(f"it starts without the right of {command}")
            if command not in starting.read_text():
                silent.append(f"missing at the start: {command}: {refused.tail(5)}")
            await asyncio.to_thread(broker.grant, [right])
        for log in (running, starting):
            if "Traceback" in log.read_text():
                silent.append(f"a traceback in {log}")

    asyncio.run(in_lanes(broker, prefix, tmp_path, lane))
    assert silent == []


def test_renewed_certificates_are_used_by_the_next_connection(
    broker: SecureBroker, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(broker, "mutual TLS", prefix, tmp_path)
    broker.grant([*rights_of(settings, "topics"), *rights_of(settings, "worker")])

    async def go() -> None:
        await ensure_topics(settings)
        async with producer(settings, connections_max_idle_ms=500) as client:
            topic = topics_of(settings).items
            await client.send_and_wait(topic, b"1", None, 0)
            broker.issue(trustme.CA())  # the broker does not trust it
            await asyncio.sleep(2.0)
            with pytest.raises(Exception):  # noqa: B017, PT011 - whichever the client gives
                async with asyncio.timeout(8.0):
                    await client.send_and_wait(topic, b"2", None, 0)
            broker.issue(broker.authority)
            async with asyncio.timeout(30.0):
                await client.send_and_wait(topic, b"3", None, 0)

    asyncio.run(go())
