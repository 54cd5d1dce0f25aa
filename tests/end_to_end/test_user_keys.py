"""With keys of users, what is left of one who was forgotten is not read again, on Apache Kafka.

Takes minutes: make test ARGS='-m long -k test_user_keys'.
"""

import asyncio
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from rocksdict import Options, Rdict

from tests.brokers import KafkaBroker
from tests.end_to_end.steps import (
    all_applied,
    no_list_waits,
    refusal,
    rejected,
    send_lines,
    session_ends,
)
from tests.end_to_end.test_pseudonyms import (
    IDS,
    KEY,
    NAMES,
    OTHER,
    USERS,
    ask,
    tracker_of,
    with_ids,
)
from tests.end_to_end.test_replay import to_its_end
from tests.erasure import COMPACTION, QUICK, files_with
from tests.shop import START, build_shop, shop_events
from tests.states import EMISSION, read_rows, user_differences
from tracker.artifact.artifact import Artifact
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events.lines import Line
from tracker.events.wire import Event, encode_event
from tracker.kafka.client import Received, read_topic, send_events
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import admin_client, producer
from tracker.kafka.partitioner import partition_of
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kafka.topics import ensure_topics
from tracker.kafka.user_keys import NAME_BYTES, UserKeys, read_user_keys
from tracker.kernels.row_bytes import owner_of, user_key
from tracker.lookup.changelogs import user_row, user_rows
from tracker.lookup.forget import forget_user
from tracker.lookup.mend_times import mend_times
from tracker.lookup.person import export_user
from tracker.settings import Settings
from tracker.store.row_cipher import RowCipher
from tracker.users.layout import HEAD, HEADER

EVENTS = 3000
BOTH = (0, 1)
SUMS = slice(HEADER.itemsize + HEAD.itemsize, HEADER.itemsize + HEAD.itemsize + 64)
"""Bytes of a user's row that are as random as the events: masses and sums."""


def home_of(user: str) -> int:
    home = partition_of(user, 2, "murmur2")
    assert home is not None
    return home


async def keys_left(settings: Settings) -> dict[int, UserKeys]:
    """Return all keys that the topic has, with the key of pseudonyms."""
    names = pseudonyms_of(settings)
    return {part: await read_user_keys(settings, names, part) for part in BOTH}


def read_again(
    backup: Mapping[tuple[int, bytes], bytes], keys: dict[int, UserKeys], user: str
) -> dict[bytes, bytes]:
    """Return what a backup of rows says of a user to whoever has these keys."""
    name = NAMES.of(user).encode()
    rows = {
        (part, key): RowCipher(keys[part]).decrypt(key, value)
        for (part, key), value in backup.items()
        if owner_of(key) == name
    }
    return {key: row for (_, key), row in rows.items() if row is not None}


async def changelog_of(settings: Settings) -> list[Received]:
    return [record async for record in read_topic(settings, topics_of(settings).users_changelog)]


def last_rows(records: list[Received]) -> dict[tuple[int, bytes], bytes]:
    rows: dict[tuple[int, bytes], bytes] = {}
    for record in records:
        assert record.key is not None
        if record.value is None:
            rows.pop((record.partition, record.key), None)
        else:
            rows[record.partition, record.key] = record.value
    return rows


def databases_of(folder: Path) -> dict[tuple[int, bytes], bytes]:
    """Return the rows in the databases of users of a copied data directory."""
    rows: dict[tuple[int, bytes], bytes] = {}
    for path in folder.rglob("users-*.db"):
        database: Any = Rdict(str(path), options=Options(raw_mode=True))
        part = int(path.stem.rsplit("-", 1)[1])
        rows |= {(part, bytes(key)): bytes(value) for key, value in database.items()}
        database.close()
    return rows


def bytes_of(folders: list[Path], patterns: tuple[str, ...]) -> bytes:
    """Return the bytes of all files, but for Kafka's indexes of offsets and times."""
    return b"".join(
        path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix not in (".index", ".timeindex")
        and any(part in str(path) for part in patterns)
    )


async def compact(settings: Settings) -> None:
    names = topics_of(settings)
    async with admin_client(settings) as admin:
        for name in (names.users_changelog, names.user_keys):
            configs = {"cleanup.policy": "compact", **COMPACTION}
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)]
            )


def differences(expected: Any, found: Any, artifact: Artifact) -> list[str]:
    config, hidden = artifact.manifest.interest, artifact.models.hidden
    return user_differences(expected, found, config, hidden, unlike=EMISSION)


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
def test_states_are_exact_after_faults_and_no_backup_of_who_was_forgotten_is_read(
    prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    artifact = Artifact.load(tmp_path / "artifacts", device="cpu")
    lines = with_ids(shop_events(EVENTS, USERS, seed=31))
    ada, bob = IDS[0], IDS[1]

    async def go(broker: KafkaBroker) -> None:
        plain = tracker_of(broker.address, f"{prefix}-plain", tmp_path, KEY)
        keyed = tracker_of(
            broker.address, f"{prefix}-keyed", tmp_path, KEY, user_keys=True, standbys=1,
            erase_seconds=2.0,
        )  # fmt: skip
        second = keyed.model_copy(update={"data_dir": tmp_path / "second", "web_port": 0})
        names, kafka = topics_of(keyed), tmp_path / "kafka" / "data"
        log, half = tmp_path / "worker.log", EVENTS // 2
        async with own_topics(plain, delete=False):
            with worker_process(plain, tmp_path / "plain.log") as worker:
                await until_ready(worker, plain)
                await all_applied(plain, await send_lines(plain, lines), 180)
                assert worker.stop(30) == 0
            expected = await read_rows(plain)
        async with own_topics(keyed, delete=False):
            await compact(keyed)
            # 1. A kill, with the disk wiped; then another one, and a second worker takes over.
            with worker_process(keyed, log) as worker:
                await until_ready(worker, keyed)
                sent = await send_lines(keyed, lines[: half - 200])
                await all_applied(keyed, half // 2, 120)
                worker.send_signal(signal.SIGKILL)
                worker.wait(10)
            shutil.rmtree(keyed.data_dir)
            await session_ends()
            beside = tmp_path / "second.log"
            with worker_process(keyed, log) as worker, worker_process(second, beside) as other:
                await until_ready(worker, keyed)
                sent += await send_lines(keyed, lines[half - 200 : half + 200])
                await all_applied(keyed, sent, 120)
                for _ in range(60):
                    await asyncio.sleep(1.0)
                    if "ready: " in beside.read_text():
                        break
                worker.send_signal(signal.SIGKILL)
                worker.wait(10)
                sent += await send_lines(keyed, lines[half + 200 :])
                await all_applied(keyed, sent, 120)
                assert other.stop(30) == 0, other.tail()
            found = await read_rows(keyed)
            assert differences(expected, found, artifact) == []
            assert len(found.users) > USERS / 2
            await session_ends()
            # 2. Copies of what there is: the log, and the databases.
            backup_log = await changelog_of(keyed)
            backup = last_rows(backup_log)
            shutil.copytree(second.data_dir, tmp_path / "backup")
            disk = databases_of(tmp_path / "backup")
            keys = await keys_left(keyed)
            wrapped = {
                record.key: record.value async for record in read_topic(keyed, names.user_keys)
            }
            mine = wrapped[NAMES.of(ada).encode()]
            assert mine is not None
            for rows in (backup, disk):
                for user in (ada, bob):
                    row = read_again(rows, keys, user)[user_key(NAMES.of(user))]
                    assert row == found.users[home_of(user), NAMES.of(user).encode()]
            # 3. No row and no key lies in the clear, in no file.
            changelog, key_topic = (
                f"{keyed.name}-{one}-" for one in ("users-changelog", "user-keys")
            )
            plain_bytes = bytes_of([kafka], (f"{plain.name}-users-changelog-",))
            keyed_bytes = bytes_of([kafka], (changelog, key_topic))
            keyed_bytes += bytes_of([second.data_dir], ("",))
            looked_for = 0
            for (part, name), row in found.users.items():
                key = keys[part].get(name)
                assert key
                assert key[NAME_BYTES : NAME_BYTES + 16] not in keyed_bytes
                if row[SUMS].count(b"\0") < 16:  # else nothing liked is in it
                    looked_for += 1
                    assert row[SUMS] in plain_bytes
                    assert row[SUMS] not in keyed_bytes
            assert looked_for > USERS / 2
            # 4. Who is forgotten is gone from log and disk and backups; others are not.
            with worker_process(keyed, log) as worker:
                await until_ready(worker, keyed)
                for asked in (ada, NAMES.of(bob)):
                    assert ask(keyed, f"/v1/users/{asked}")[0] == 200
                    assert await user_row(keyed, asked) is not None
                person = await export_user(keyed, artifact, ada)
                assert person is not None
                assert person["states"][0]["row"]["head"]["events"] > 0
                report = await forget_user(keyed, ada, 30.0)
                assert (report.complete, report.was_known) == (True, True)
                assert names.user_keys in {one.place for one in report.remainders}
                assert ask(keyed, f"/v1/users/{ada}")[0] == 404
                keys = await keys_left(keyed)
                for rows in (backup, disk):
                    assert read_again(rows, keys, ada) == {}
                    assert user_key(NAMES.of(bob)) in read_again(rows, keys, bob)
                for record in backup_log:  # rows from before the last ones too
                    if owner_of(record.key or b"") == NAMES.of(ada).encode():
                        cipher = RowCipher(keys[record.partition])
                        assert cipher.decrypt(record.key or b"", record.value) is None
                assert await user_row(keyed, ada) is None
                person = await export_user(keyed, artifact, ada)
                assert person is None or person["states"] == []
                users = {user async for part in user_rows(keyed) for user in part}
                assert (NAMES.of(ada) in users, NAMES.of(bob) in users) == (False, True)
                # Its wrapped key leaves the topic, and its name the changelog, by compaction.
                for number in range(60):
                    new = [
                        Line("new", encode_event(Event(f"new-{number}-{n}", "i1", "like", START)))
                        for n in range(8)
                    ]
                    sent += (await send_events(keyed, iter(new))).confirmed
                    await forget_user(keyed, f"other-{number}", 20.0)
                    await asyncio.sleep(1.0)
                    left = files_with(mine, [kafka], (key_topic,))
                    name = NAMES.of(ada).encode()
                    left += files_with(name, [kafka], (key_topic, changelog))
                    left += files_with(name, [keyed.data_dir], ("",))
                    if not left:
                        break
                assert left == []
                # The user comes back, and the copies stay unread.
                back = [Line("back", encode_event(Event(ada, "i5", "like", time.time())))]
                sent += (await send_events(keyed, iter(back))).confirmed
                await all_applied(keyed, sent, 60)
                assert worker.stop(30) == 0, worker.tail()
            keys = await keys_left(keyed)
            assert read_again(backup, keys, ada) == {}
            await session_ends()
            # 5. Other settings are refused, and commands say so.
            for wrong, words in (
                (keyed.model_copy(update={"user_keys": False}), "TRACKER_USER_KEYS is not set"),
                (plain.model_copy(update={"user_keys": True}), "to give each user a key"),
                (
                    tracker_of(broker.address, keyed.name, tmp_path, OTHER, user_keys=True),
                    "to change the key, build them again",
                ),
            ):
                await ensure_topics(wrong)
                assert words in await refusal(wrong, log)
            mended = await mend_times(keyed, artifact)
            assert [(one.rows, one.unreadable) for one in mended] == [(0, 0), (0, 0)]
            # 6. A damaged key costs its user's rows, and no other's.
            async with producer(keyed) as client:
                name = NAMES.of(bob).encode()
                await client.send_and_wait(names.user_keys, b"\1garbage", name, home_of(bob))
            with worker_process(keyed, log) as worker:
                await until_ready(worker, keyed)
                assert "keys of users that are damaged are 1" in log.read_text()
                again = [
                    Line("again", encode_event(Event(user, "i7", "like", time.time())))
                    for user in (bob, IDS[2])
                ]
                sent += (await send_events(keyed, iter(again))).confirmed
                await all_applied(keyed, sent, 60)
                assert worker.stop(30) == 0, worker.tail()
            person = await export_user(keyed, artifact, bob, records=False)
            assert person is not None
            assert person["states"][0]["row"]["head"]["events"] == 1
            assert person["states"][0]["set_aside"]
            assert await rejected(keyed) == []
        assert b"Traceback" not in log.read_bytes() + beside.read_bytes()

    with KafkaBroker(tmp_path / "kafka", extra=QUICK) as broker:
        asyncio.run(go(broker))


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
def test_keys_of_users_are_turned_on_and_off_by_a_replay_with_the_lists_that_wait(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    artifact = Artifact.load(tmp_path / "artifacts", device="cpu")
    lines = with_ids(shop_events(EVENTS, USERS, seed=37))

    async def go() -> None:
        plain = tracker_of(kafka.address, f"{prefix}-plain", tmp_path, KEY)
        on = tracker_of(
            kafka.address, f"{prefix}-on", tmp_path, KEY, stream=plain.name, user_keys=True
        )
        off = tracker_of(kafka.address, f"{prefix}-off", tmp_path, KEY, stream=plain.name)
        log = tmp_path / "workers.log"
        async with own_topics(plain, delete=False):
            with worker_process(plain, log) as worker:
                await until_ready(worker, plain)
                for part in (lines[: EVENTS // 2], lines[EVENTS // 2 :]):
                    sent = await send_lines(plain, part)
                    await all_applied(plain, sent, 120)
                    await asyncio.sleep(2.0)
                await all_applied(plain, EVENTS, 120)
                assert worker.stop(30) == 0
            expected = await read_rows(plain)
            assert len(expected.owed) > USERS / 2
            await session_ends()
            # 1. Turned on: the same states, and the lists that wait come.
            await ensure_topics(on)
            await to_its_end(on, plain.name, log)
            await to_its_end(on, plain.name, log, "--change-over")
            found = await read_rows(on)
            assert differences(expected, found, artifact) == []
            assert found.owed == expected.owed
            with worker_process(on, log) as worker:
                await until_ready(worker, on)
                await no_list_waits(on)
                assert worker.stop(30) == 0
            topic = topics_of(on).recommendations
            keys = [record.key async for record in read_topic(on, topic)]
            assert expected.owed <= {key or b"" for key in keys}
            await session_ends()
            # 2. Turned off: the same states again.
            await ensure_topics(off)
            await to_its_end(off, on.name, log)
            await to_its_end(off, on.name, log, "--change-over")
            assert differences(expected, await read_rows(off), artifact) == []
        assert b"Traceback" not in log.read_bytes()

    asyncio.run(go())
