"""Commands read and mend rows that are encrypted by keys of users, and refuse where they cannot."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worlds import DAY, START, World, likes
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.outbox import Record
from tracker.kafka.pseudonyms import PseudonymError, Pseudonyms, pseudonyms_of
from tracker.kafka.topics import ensure_topics
from tracker.kafka.user_keys import UserKeyError, UserKeys
from tracker.kernels.row_bytes import POSITION_KEY, owed_key, user_key
from tracker.lookup.changelogs import user_row, user_rows
from tracker.lookup.forget import remainders
from tracker.lookup.mend_times import mend_times
from tracker.lookup.person import export_user
from tracker.lookup.replay import _take_over
from tracker.settings import Settings, load_settings
from tracker.store.partition_store import Position, decode_position, encode_position
from tracker.store.row_cipher import RowCipher, row_cipher

NAMES = Pseudonyms("k" * 32)
ADA, BOB = NAMES.of("ada"), NAMES.of("bob")
FAR = 4_102_444_800.0
PENDING = b"[5,1.5,null,false]"


def settings_of(address: str, name: str, folder: Path, **more: Any) -> Settings:
    (folder / "key").write_text("k" * 32)
    given = {"pseudonym_key_file": folder / "key", "user_keys": True, "event_partitions": 1}
    return load_settings({}, brokers=address, name=name, **(given | more))


async def send(settings: Settings, *records: Record) -> None:
    async with producer(settings) as client:
        for record in records:
            await client.send_and_wait(record.topic, record.value, record.key, record.partition)


async def fill(settings: Settings, world: World, stream_time: float = START) -> list[bytes]:
    """Write rows of two users as a worker would; return these in the clear."""
    names = topics_of(settings)
    await ensure_topics(settings)
    plain = world.states.pack(np.arange(2))
    cipher = RowCipher(UserKeys(NAMES, names.user_keys, 0))
    position = Position(
        1, 4, names.events, "", 1, stream_time, pseudonyms=NAMES.fingerprint, user_keys=""
    )
    rows = cipher.encrypt(
        [
            (user_key(ADA), plain[0]),
            (user_key(BOB), plain[1]),
            (owed_key(ADA), PENDING),
            (POSITION_KEY, encode_position(position)),
        ]
    )
    keys = cipher.keys.records(cipher.keys.take_changes())
    await send(settings, *keys, *(Record(names.users_changelog, 0, *row) for row in rows))
    return plain


async def forget(settings: Settings, user: str) -> None:
    """Delete the key alone, as of a backup of the rows that is put back."""
    await send(settings, Record(topics_of(settings).user_keys, 0, user.encode(), None))


async def users_of(settings: Settings) -> dict[str, bytes]:
    return {user: row async for part in user_rows(settings) for user, row in part.items()}


def test_rows_are_shown_and_exported_until_the_key_is_gone(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(tansu, prefix, tmp_path)
    world = World(users=2)
    world.send(*likes(0, [0, 2, 4]), *likes(1, [1, 3]))

    async def go() -> None:
        ada, bob = await fill(settings, world)
        assert await user_row(settings, "ada") == ada
        assert await users_of(settings) == {ADA: ada, BOB: bob}
        person = await export_user(settings, world.artifact, "ada")
        assert person is not None
        assert person["states"][0]["row"]["head"]["events"] == 3
        assert person["states"][0]["owed"] == [5, 1.5, None, False]
        assert topics_of(settings).user_keys in {one.place for one in await remainders(settings)}
        await forget(settings, ADA)
        assert await user_row(settings, "ada") is None
        assert await users_of(settings) == {BOB: bob}
        assert await export_user(settings, world.artifact, "ada") is None

    asyncio.run(go())


def test_rows_are_not_read_where_the_settings_do_not_have_the_keys(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(tansu, prefix, tmp_path)
    off = settings.model_copy(update={"user_keys": False})
    (tmp_path / "other").write_text("o" * 32)
    other = settings.model_copy(update={"pseudonym_key_file": tmp_path / "other"})
    world = World(users=2)
    world.send(*likes(0, [0]), *likes(1, [1]))

    async def go() -> None:
        await fill(settings, world)
        for wrong, error in ((off, UserKeyError), (other, PseudonymError)):
            for ask in (
                user_row(wrong, "ada"),
                users_of(wrong),
                export_user(wrong, world.artifact, "ada"),
                mend_times(wrong, world.artifact),
            ):
                with pytest.raises(error, match="tracker replay"):
                    await ask

    asyncio.run(go())


def test_times_of_the_future_are_mended_and_encrypted_again(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(tansu, prefix, tmp_path)
    world = World(users=2)
    now = START + 10 * DAY
    world.send(
        {"user": 0, "item": "i2", "time": START},
        {"user": 0, "item": "i1", "time": FAR},
        {"user": 1, "item": "i1", "time": START},
    )

    async def go() -> None:
        _, bob = await fill(settings, world, FAR)
        users, _ = await mend_times(settings, world.artifact, lambda: now)
        assert (users.positions, users.rows, users.unreadable) == (1, 1, 0)
        raw: dict[bytes, bytes] = {}
        async for record in read_topic(settings, topics_of(settings).users_changelog):
            raw[record.key or b""] = record.value or b""
        cipher = await row_cipher(settings, pseudonyms_of(settings), 0)
        assert cipher is not None
        ada = cipher.decrypt(user_key(ADA), raw[user_key(ADA)])
        assert ada is not None
        assert ada == await user_row(settings, "ada") != raw[user_key(ADA)]
        assert await user_row(settings, "bob") == bob
        assert decode_position(raw[POSITION_KEY]).stream_time == now
        again, _ = await mend_times(settings, world.artifact, lambda: now)
        assert (again.positions, again.rows) == (0, 0)

    asyncio.run(go())


@pytest.mark.parametrize("turned_on", [True, False])
def test_a_replay_takes_lists_that_wait_over_in_the_clear(
    tansu: str, prefix: str, tmp_path: Path, turned_on: bool
) -> None:
    live = settings_of(tansu, prefix, tmp_path)
    new = live.model_copy(update={"name": f"{prefix}-new", "user_keys": turned_on})
    world = World(users=2)
    world.send(*likes(0, [0]), *likes(1, [1]))

    async def go() -> None:
        await fill(live, world)
        await ensure_topics(new)
        position = Position(1, 4, "e", "", 1, pseudonyms=NAMES.fingerprint, user_keys="")
        over = await _take_over(new, live.model_copy(update={"user_keys": turned_on}), 0, position)
        assert over.lists == {owed_key(ADA): PENDING}

    asyncio.run(go())
