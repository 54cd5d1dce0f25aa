"""The states that changelogs hold in the end, and how two runs are compared."""

from collections.abc import Container, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec
import numpy as np

from tests.neighbour_counts import Uncapped
from tracker.demo.audit import Truth
from tracker.events.item_events import decode_blocks
from tracker.events.wire import Recommendation
from tracker.items.states import ItemStates
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kernels.row_bytes import SEEN_PREFIX, USER_PREFIX, WAITING_PREFIX
from tracker.recommend.learned_row import decode_learned
from tracker.settings import Settings
from tracker.store.partition_store import decode_position
from tracker.store.row_cipher import row_cipher
from tracker.users.config import InterestConfig
from tracker.users.states import UserStates

EMISSION = ("emitted_offset", "emitted_at", "list_hash")
"""What a row knows of the last list: it depends on where chunks began, and not on the events."""

PLACE = ("last_offset",)
"""What a row knows of where its events were, which is nothing if they were handed on."""

ITEM_TOLERANCE = 1e-6

ENCODER_TOLERANCE = 0.02
"""Stated loss of an encoder's state in float16, whose components are of size 1."""

ITEM_EXACT = (
    "item", "positives", "negatives", "neutrals", "first_time", "last_time", "ref_time",
)  # fmt: skip


@dataclass
class Rows:
    """The last value of each key, by partition: users, seen sets, items, owed lists, positions.

    `waiting` holds the events of items that have no row yet.
    """

    users: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    seen: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    owed: set[bytes] = field(default_factory=set)
    items: dict[bytes, bytes] = field(default_factory=dict)
    waiting: dict[bytes, bytes] = field(default_factory=dict)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)


async def read_rows(settings: Settings) -> Rows:
    """Read both changelogs, committed records only."""
    names = topics_of(settings)
    rows = Rows()
    for topic in (names.users_changelog, names.items_changelog):
        async with aclosing(read_topic(settings, topic)) as records:
            async for record in records:
                assert record.key is not None
                kind, key = record.key[:1], record.key[1:]
                place = (record.partition, key)
                if record.key.startswith(WAITING_PREFIX):
                    item = record.key.removeprefix(WAITING_PREFIX)
                    rows.waiting.pop(item, None)
                    if record.value is not None:
                        rows.waiting[item] = record.value
                    continue
                if record.value is None:
                    for table in (rows.users, rows.seen):
                        if kind == (b"u" if table is rows.users else b"s"):
                            table.pop(place, None)
                    rows.owed -= {key} if kind == b"o" else set()
                    if kind == b"i":
                        rows.items.pop(key, None)
                elif kind == b"u":
                    rows.users[place] = record.value
                elif kind == b"s":
                    rows.seen[place] = record.value
                elif kind == b"o":
                    rows.owed.add(key)
                elif kind == b"i":
                    rows.items[key] = record.value
                elif kind in (b"f", b"x"):  # hash of a forgotten user, with a salt; a row set aside
                    continue
                elif kind == b"l":  # depends on where chunks began; it has to be whole
                    decode_learned(record.value)
                else:
                    reached = decode_position(record.value)
                    rows.positions[topic, record.partition] = reached.position
                    if reached.hand_over is not None:
                        place_of = (names.hand_over, record.partition)
                        rows.positions[place_of] = reached.hand_over.position
    for partition in {partition for partition, _ in rows.users}:
        cipher = await row_cipher(settings, pseudonyms_of(settings), partition)
        if cipher is not None:
            for table, prefix in ((rows.users, USER_PREFIX), (rows.seen, SEEN_PREFIX)):
                for place in [place for place in table if place[0] == partition]:
                    row = cipher.decrypt(prefix + place[1], table.pop(place))
                    if row is not None:
                        table[place] = row
    return rows


async def read_item_events(settings: Settings) -> np.ndarray:
    """Read what users told items, committed records only."""
    blocks = []
    async with aclosing(read_topic(settings, topics_of(settings).items)) as records:
        async for record in records:
            if record.value is not None:
                blocks.append(record.value)
    return decode_blocks(blocks)


def neighbours_kept(counted: Uncapped, rows: Rows) -> dict[str, float]:
    """Measure how much of an uncapped count of neighbours the item rows of a run hold."""
    names = sorted(rows.items)
    states = _item_states(rows.items, names)
    slots = {int(item): slot for slot, item in enumerate(states.head["item"].tolist())}
    return {
        "overlap_at_20": round(counted.overlap(states, slots, 20), 4),
        "overlap_at_64": round(counted.overlap(states, slots, 64), 4),
        "strength_at_20": round(counted.strength_kept(states, slots, 20), 4),
        "strength_at_64": round(counted.strength_kept(states, slots, 64), 4),
    }


def user_differences(
    expected: Rows,
    found: Rows,
    config: InterestConfig,
    hidden: int = 0,
    skip: Container[bytes] = (),
    unlike: Sequence[str] = EMISSION,
) -> list[str]:
    """Name the users whose rows are not bit for bit the same, but for the fields `unlike`.

    An encoder's states, `hidden` wide, may differ by ENCODER_TOLERANCE: sums of floats depend on
    how many users a step has.
    """
    names = sorted(name for name in set(expected.users) | set(found.users) if name[1] not in skip)
    both = [name for name in names if name in expected.users and name in found.users]
    wrong = [
        f"user {name} is only in {'the first' if name in expected.users else 'the second'} run"
        for name in names
        if name not in expected.users or name not in found.users
    ]
    (one, left), (other, right) = (
        _unpacked(rows.users, both, config, hidden, unlike) for rows in (expected, found)
    )
    far = (np.abs(left - right) > ENCODER_TOLERANCE).any(axis=1)
    for number, name in enumerate(both):
        if one[number] != other[number]:
            wrong.append(f"user {name}: the rows differ")
        elif far[number]:
            wrong.append(f"user {name}: the encoder's states differ")
        elif expected.seen.get(name) != found.seen.get(name):
            wrong.append(f"user {name}: the seen sets differ")
    return wrong


def _unpacked(
    rows: dict[tuple[int, bytes], bytes],
    names: list[tuple[int, bytes]],
    config: InterestConfig,
    hidden: int,
    unlike: Sequence[str],
) -> tuple[list[bytes], np.ndarray]:
    states = UserStates(config, max(1, len(names)), hidden)
    slots = np.arange(len(names), dtype=np.int64)
    states.unpack(slots, [rows[name] for name in names])
    for field_name in unlike:
        states.head[field_name] = 0
    encoded = states.hidden[: len(names)].astype(np.float32)
    states.hidden[:] = 0
    return states.pack(slots), encoded


def sum_differences(
    expected: Rows, found: Rows, config: InterestConfig, users: Container[bytes]
) -> list[str]:
    """Name the users, of `users`, whose counts or sums differ, in whatever order events came."""
    names = sorted(name for name in set(expected.users) | set(found.users) if name[1] in users)
    wrong = []
    for name in names:
        if name not in expected.users or name not in found.users:
            wrong.append(f"user {name} is only in one run")
            continue
        states = UserStates(config, 2)
        states.unpack(np.arange(2), [expected.users[name], found.users[name]])
        for exact in ("events", "positives", "negatives", "unknown", "first_time", "last_time"):
            one, other = states.head[exact].tolist()
            if one != other:
                wrong.append(f"user {name}: {exact} is {other}, expected {one}")
        for close in (states.sums, states.masses):
            if not np.allclose(close[0], close[1], rtol=1e-4, atol=1e-4):
                wrong.append(f"user {name}: the sums differ")
    return wrong


def item_differences(expected: Rows, found: Rows) -> list[str]:
    """Name the items whose counts differ by more than 1e-6 of themselves."""
    names = sorted(set(expected.items) | set(found.items))
    both = [name for name in names if name in expected.items and name in found.items]
    wrong = [
        f"item {name.hex()} is only in {'the first' if name in expected.items else 'the second'}"
        for name in names
        if name not in expected.items or name not in found.items
    ]
    one, other = (_item_states(rows.items, both) for rows in (expected, found))
    for number, name in enumerate(both):
        a, b = one.head[number], other.head[number]
        for exact in ITEM_EXACT:
            if not np.array_equal(a[exact], b[exact], equal_nan=exact.endswith("time")):
                wrong.append(f"item {name.hex()}: {exact} is {b[exact]}, expected {a[exact]}")
        pairs = {close: (a[close], b[close]) for close in ("weight_sum", "weight_total")}
        pairs["counts"] = (one.counted["count"][number], other.counted["count"][number])
        for close, (x, y) in pairs.items():
            if not np.allclose(x, y, rtol=ITEM_TOLERANCE, atol=ITEM_TOLERANCE):
                wrong.append(f"item {name.hex()}: {close} is {y}, expected {x}")
        if not _same_scenes(one, other, number):
            wrong.append(f"item {name.hex()}: scenes differ")
    return wrong


def _item_states(rows: dict[bytes, bytes], names: list[bytes]) -> ItemStates:
    states = ItemStates(max(1, len(names)))
    states.unpack(np.arange(len(names), dtype=np.int64), [rows[name] for name in names])
    return states


def _same_scenes(one: ItemStates, other: ItemStates, slot: int) -> bool:
    def scenes(states: ItemStates) -> dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        used = states.scenes[slot, : int(states.head[slot]["n_scenes"])]
        return {int(entry["scene"]): entry["counts"] for entry in used}

    a, b = scenes(one), scenes(other)
    return a.keys() == b.keys() and all(
        np.allclose(a[key], b[key], rtol=ITEM_TOLERANCE, atol=ITEM_TOLERANCE) for key in a
    )


async def without_list(settings: Settings, truth: Truth) -> list[str]:
    """Name the users whose last event is in no recommendation."""
    made: dict[tuple[bytes, int], int] = {}
    topic = topics_of(settings).recommendations
    async with aclosing(read_topic(settings, topic)) as records:
        async for record in records:
            if record.key is None or record.value is None:
                continue
            found = msgspec.json.decode(record.value, type=Recommendation)
            assert found.items, f"{found.id} of {found.user_id} is an empty list"
            assert found.user_id.encode() == record.key
            partition, offset = (int(part) for part in found.id.rsplit("-", 2)[1:])
            made[record.key, partition] = max(made.get((record.key, partition), -1), offset)
    return [
        f"user {user!r} (partition {partition}): last event {offset}, last list {made.get(key, -1)}"
        for (user, partition), offset in truth.last.items()
        if made.get(key := (user, partition), -1) < offset
    ]
