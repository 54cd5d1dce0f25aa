"""With a key no id of a user lies in states, lists, logs or metrics, byte by byte, on Apache Kafka.

Takes minutes: make test ARGS='-m long -k test_pseudonyms'.
"""

import asyncio
import signal
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import KafkaBroker
from tests.end_to_end.steps import (
    all_applied,
    no_list_waits,
    refusal,
    rejected,
    send_lines,
    session_ends,
    settings_of,
)
from tests.end_to_end.test_replay import replay_command, to_its_end
from tests.erasure import files_with
from tests.shop import START, build_shop, shop_events
from tests.states import EMISSION, PLACE, Rows, read_rows, user_differences, without_list
from tracker.artifact.artifact import Artifact
from tracker.demo.audit import read_events
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events.lines import Line
from tracker.events.wire import Event, OtherEvent, encode_event
from tracker.kafka.client import read_topic, send_events, watch
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.partitioner import partition_of
from tracker.kafka.pseudonyms import Pseudonyms
from tracker.kafka.topics import ensure_topics
from tracker.lookup.changelogs import user_row
from tracker.lookup.export import export_users
from tracker.lookup.forget import forget_user
from tracker.lookup.merge_states import MergeError, merge_states
from tracker.lookup.move_states import MoveError, move_states
from tracker.lookup.person import export_user
from tracker.lookup.replay import ReplayError, retire
from tracker.settings import Settings

KEY, OTHER = "one key of the shop, for a test only", "another key of the shop, for a test"
NAMES = Pseudonyms(KEY)
NEEDLE = b"needle"
USERS, EVENTS = 200, 3000
IDS = [f"needle-u{number}" for number in range(USERS)]
HERE, THERE = ([user for user in IDS if partition_of(user, 2, "murmur2") == n] for n in (0, 1))
GONE = "needle-gone"
ODD = [name for name in (f"needle-odd{n}" for n in range(30)) if partition_of(name, 2, "murmur2")]
"""Users whose events all lie in the wrong partition."""

STATES = ("-users-changelog-", "-items-changelog-", "-items-", "-forget-")
KEPT = (*STATES, "-recommendations-", "__consumer_offsets", "__transaction")
"""Topics of the tracker and the brokers, but for those of records as producers wrote them."""


def tracker_of(address: str, name: str, folder: Path, key: str | None, **more: Any) -> Settings:
    if key is not None:
        path = folder / f"key-{Pseudonyms(key).fingerprint}"
        path.write_text(f"{key}\n")
        more["pseudonym_key_file"] = path
    return settings_of(
        address, name, folder, commit_interval_seconds=0.2, emit_min_interval_seconds=3600.0,
        log_user_ids=True, **more,
    )  # fmt: skip


def with_ids(lines: Iterable[Line]) -> list[Line]:
    """Return events whose users have ids that can be looked for."""
    return [
        Line(line.place, line.value.replace(b'"user_id":"u', b'"user_id":"needle-u'))
        for line in lines
    ]


async def send(settings: Settings, lines: list[Line], part: int) -> int:
    """Send events, some in a wrong partition, and users who join those of the other partition."""
    await send_lines(settings, lines)
    topic = topics_of(settings).events
    odd: list[tuple[str, int, Any]] = [
        (user, 0, Event(user, f"i{at}", "like", START + part * 100, event_id=f"{part}-{at}"))
        for at, user in enumerate(ODD)
    ]
    if part == 0:
        odd += [
            (user, 1, OtherEvent(user, timestamp=START + 50, retracts="", was=was))
            for user, was in zip(THERE[20:24], HERE[20:24], strict=True)
        ]
    async with producer(settings) as client:
        for user, partition, event in odd:
            await client.send_and_wait(topic, encode_event(event), user.encode(), partition)
    return len(lines) + len(odd)


def differences(one: Rows, other: Rows, artifact: Artifact) -> list[str]:
    """Return the users whose states differ, but for those who join from other partitions.

    Between two partitions there is no order, so what joins may come before or after an event.
    """
    config, hidden = artifact.manifest.interest, artifact.models.hidden
    skip = [NAMES.of(user).encode() for user in HERE[20:24] + THERE[20:24]]
    unlike = (*EMISSION, *PLACE)
    text = "\n".join(user_differences(one, other, config, hidden, skip=skip, unlike=unlike))
    for user in (*IDS, *ODD, GONE):
        text = text.replace(NAMES.of(user), user)
    return text.splitlines()


def ask(settings: Settings, path: str) -> tuple[int, bytes]:
    try:
        url = f"http://127.0.0.1:{settings.web_port}{path}"
        with urllib.request.urlopen(url, timeout=10.0) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def under_pseudonyms(rows: Rows) -> Rows:
    """Return rows with pseudonyms in the place of ids."""

    def named(table: dict[tuple[int, bytes], bytes]) -> dict[tuple[int, bytes], bytes]:
        return {(part, NAMES.of(key.decode()).encode()): row for (part, key), row in table.items()}

    return replace(rows, users=named(rows.users), seen=named(rows.seen))


async def truth_by_pseudonym(settings: Settings) -> Any:
    """Return the last event of each user by pseudonym, but for those who have joined others."""
    truth = await read_events(settings)
    last = {
        (NAMES.of(user.decode()).encode(), partition): offset
        for (user, partition), offset in truth.last.items()
        if user.decode() not in HERE[20:24]
    }
    return replace(truth, last=last)


async def keys_of(settings: Settings, topic: str) -> Counter[bytes]:
    return Counter([record.key or b"" async for record in read_topic(settings, topic)])


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_byte_of_an_id_is_kept_and_owed_lists_come_under_the_right_key(
    prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    artifact = Artifact.load(tmp_path / "artifacts", device="cpu")
    lines = with_ids(shop_events(EVENTS, USERS, seed=23))

    async def go(broker: KafkaBroker) -> None:
        settings = tracker_of(broker.address, prefix, tmp_path, KEY)
        none = tracker_of(broker.address, prefix, tmp_path, None)
        other = tracker_of(broker.address, prefix, tmp_path, OTHER)
        names, kafka = topics_of(settings), tmp_path / "kafka" / "data"
        log = tmp_path / "worker.log"
        async with own_topics(settings, delete=False):
            # 1. Each user gets a list, and is owed another one; then the worker is killed.
            with worker_process(settings, log) as worker:
                await until_ready(worker, settings)
                sent = await send(settings, lines[: EVENTS // 2], 0)
                await all_applied(settings, sent, 120)
                await asyncio.sleep(2.0)  # what was handed on is applied too
                sent += await send(settings, lines[EVENTS // 2 :], 1)
                await all_applied(settings, sent, 120)
                await asyncio.sleep(2.0)
                worker.send_signal(signal.SIGKILL)
                worker.wait(10)
            assert len((await read_rows(settings)).owed) > USERS / 2
            assert len(await without_list(settings, await truth_by_pseudonym(settings))) > USERS / 2
            await session_ends()
            # 2. Without the key, or with another one, no worker starts.
            assert "TRACKER_PSEUDONYM_KEY_FILE is not set" in await refusal(none, log)
            assert "to change the key, build them again" in await refusal(other, log)
            # 3. With it the owed lists come, and questions are answered.
            with worker_process(settings, log) as worker:
                await until_ready(worker, settings)
                await no_list_waits(settings)
                truth = await truth_by_pseudonym(settings)
                assert await without_list(settings, truth) == []
                ada = THERE[0]
                for name in (ada, NAMES.of(ada)):
                    assert ask(settings, f"/v1/users/{name}")[0] == 200
                    person = await export_user(settings, artifact, name)
                    assert person is not None
                    assert (len(person["states"]), person["pseudonym"]) == (1, NAMES.of(ada))
                    assert person["records"][names.recommendations]
                    assert bool(person["records"][names.events]) == (name == ada)
                    assert await user_row(settings, name) is not None
                    async for record in watch(settings, name, from_beginning=True):
                        assert record.key == NAMES.of(ada).encode()
                        break
                metrics = ask(settings, "/metrics")[1]
                assert (NEEDLE in metrics, b"tracker_events_total" in metrics) == (False, True)
                assert (await forget_user(settings, ada, 30.0)).complete
                assert ask(settings, f"/v1/users/{ada}")[0] == 404
                late = [Line("late", encode_event(Event(ada, "i1", "like", START)))]
                await send_events(settings, iter(late))
                await all_applied(settings, sent + 1, 60)
                assert ask(settings, f"/v1/users/{ada}")[0] == 404
                assert worker.stop(30) == 0, worker.tail()
            # 4. Commands that would have to know partitions refuse.
            await session_ends()
            with pytest.raises(MoveError, match="pseudonym does not tell"):
                await move_states(settings)
            with pytest.raises(MergeError, match="pseudonym does not tell"):
                await merge_states(settings, artifact)
            await export_users(settings, artifact, tmp_path / "users.parquet")
        # 5. No byte of an id is where it must not be; those of pseudonyms are.
        assert files_with(NEEDLE, [kafka], KEPT) == []
        assert files_with(NEEDLE, [settings.data_dir], ("",)) == []
        assert files_with(NEEDLE, [tmp_path], ("worker.log", "users.parquet")) == []
        shown = NAMES.of(THERE[1]).encode()
        for pattern in ("-users-changelog-", "-recommendations-"):
            assert files_with(shown, [kafka], (pattern,))
        assert files_with(shown, [settings.data_dir], ("",))
        assert b"user ~" in log.read_bytes()
        assert files_with(NEEDLE, [kafka], (f"{names.events}-",))
        assert b"Traceback" not in log.read_bytes()

    with KafkaBroker(tmp_path / "kafka") as broker:
        asyncio.run(go(broker))


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
def test_pseudonyms_are_turned_on_by_a_replay(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    artifact = Artifact.load(tmp_path / "artifacts", device="cpu")
    lines = with_ids(shop_events(EVENTS, USERS, seed=29))
    gone = [Line("gone", encode_event(Event(GONE, "i3", "like", START)))]

    async def go() -> None:
        plain = tracker_of(kafka.address, f"{prefix}-plain", tmp_path, None)
        keyed = tracker_of(kafka.address, f"{prefix}-keyed", tmp_path, KEY, stream=plain.name)
        early = tracker_of(kafka.address, plain.name, tmp_path, KEY)
        log = tmp_path / "workers.log"
        async with own_topics(plain, delete=False):
            with worker_process(plain, log) as worker:
                await until_ready(worker, plain)
                await send_events(plain, iter(gone))
                sent = 1 + await send(plain, lines[: EVENTS // 2], 0)
                await all_applied(plain, sent, 120)
                await asyncio.sleep(2.0)
                sent += await send(plain, lines[EVENTS // 2 :], 1)
                await all_applied(plain, sent, 120)
                assert (await forget_user(plain, GONE, 30)).complete
                await asyncio.sleep(2.0)
                assert worker.stop(30) == 0
            expected = await read_rows(plain)
            assert len(expected.owed) > USERS / 2
            # 1. Turned on over states with ids: refused. By a replay: the same states.
            await session_ends()
            assert "to turn pseudonyms on, build them again" in await refusal(early, log)
            await ensure_topics(keyed)
            await to_its_end(keyed, plain.name, log)
            await to_its_end(keyed, plain.name, log, "--change-over")
            found = await read_rows(keyed)
            assert differences(under_pseudonyms(expected), found, artifact) == []
            assert len(found.users) > USERS / 2
            assert found.owed == {NAMES.of(key.decode()).encode() for key in expected.owed}
            # 2. The owed lists come, under pseudonyms; who was forgotten stays so.
            with worker_process(keyed, log) as worker:
                await until_ready(worker, keyed)
                await no_list_waits(keyed)
                await send_events(keyed, iter(gone))
                await all_applied(keyed, sent + 1, 60)
                assert ask(keyed, f"/v1/users/{GONE}")[0] == 404
                keys = await keys_of(keyed, topics_of(keyed).recommendations)
                assert all(NAMES.of(key.decode()).encode() in keys for key in expected.owed)
                assert worker.stop(30) == 0
        assert b"Traceback" not in log.read_bytes()
        assert await rejected(keyed) == []

    asyncio.run(go())


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
def test_pseudonyms_are_turned_off_by_a_replay_once_nothing_is_owed(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    artifact = Artifact.load(tmp_path / "artifacts", device="cpu")
    lines = with_ids(shop_events(EVENTS, USERS, seed=29))

    async def go() -> None:
        keyed = tracker_of(kafka.address, f"{prefix}-keyed", tmp_path, KEY)
        off = tracker_of(kafka.address, f"{prefix}-off", tmp_path, None, stream=keyed.name)
        log = tmp_path / "workers.log"
        async with own_topics(keyed, delete=False):
            with worker_process(keyed, log) as worker:
                await until_ready(worker, keyed)
                sent = await send(keyed, lines[: EVENTS // 2], 0)
                await all_applied(keyed, sent, 120)
                assert (await forget_user(keyed, HERE[5], 30)).complete
                sent += await send(keyed, lines[EVENTS // 2 :], 1)
                await all_applied(keyed, sent, 120)
                await asyncio.sleep(2.0)
                assert worker.stop(30) == 0
            await session_ends()
            # Turned off: refused as long as lists are owed or the forgotten are not known.
            await ensure_topics(off)
            with replay_command(off, keyed.name, log) as replay:
                assert await asyncio.to_thread(replay.wait, 200) != 0
                assert "TRACKER_PSEUDONYM_FORMER_KEY_FILE" in replay.tail(20)
            await session_ends()
            known = off.model_copy(update={"pseudonym_former_key_file": keyed.pseudonym_key_file})
            await to_its_end(known, keyed.name, log)
            with pytest.raises(ReplayError, match="users wait for lists"):
                await retire(known, keyed.name, known.name)
            calm = keyed.model_copy(update={"emit_min_interval_seconds": 0.0})
            with worker_process(calm, log) as worker:
                await until_ready(worker, calm)
                await asyncio.sleep(5.0)
                assert worker.stop(30) == 0
            await session_ends()
            await to_its_end(known, keyed.name, log, "--change-over")
            now, then = await read_rows(known), await read_rows(keyed)
            assert differences(under_pseudonyms(now), then, artifact) == []
            assert (0, HERE[5].encode()) not in now.users
            assert (1, THERE[5].encode()) in now.users
        assert b"Traceback" not in log.read_bytes()

    asyncio.run(go())
