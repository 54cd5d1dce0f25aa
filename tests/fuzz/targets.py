"""What is fuzzed: for each kind of input a strategy, and what reads it, with its declared errors.

A target returns where the input was read or refused by an error that its reader declares. Anything
else that it raises is a fault.
"""

import atexit
import io
import shutil
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.structs import TopicPartition
from crc32c import crc32c
from hypothesis import strategies as st
from rocksdict import WriteBatch

from indexer.data.catalog import CatalogError, read_items
from indexer.data.histories import EventFileError, read_event_log
from indexer.data.users import UserFileError, read_users
from tests.api_world import ApiWorld, with_api
from tests.fuzz.inputs import changed, encoded, lines, objects, rows, texts, values
from tests.paths import GOLDEN
from tests.plane_world import NOW, FakeRecord, WorkerState, like
from tests.worlds import START, World, likes
from tracker.api.messages import (
    EventsBody,
    GuestBody,
    ListQuery,
    ScoreBody,
    WhatIfBody,
)
from tracker.api.problems import ProblemError
from tracker.api.server import _decoded
from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import _digest
from tracker.artifact.versions import ArtifactError, set_latest, version_name
from tracker.dialects.loading import BUILT_IN, load_dialect
from tracker.dialects.table import DialectError, TableDialect
from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventReader, events_in
from tracker.events.entries import event_reading
from tracker.events.item_events import (
    ITEM_EVENT,
    ItemEventFormatError,
    _checksum,
    decode_block,
    encode_block,
)
from tracker.events.kinds import Kinds, KindsFileError
from tracker.events.wire import RejectedEventError, hash_id
from tracker.explained import Explained
from tracker.items.config import FORMER
from tracker.items.counts import apply_item_events
from tracker.items.states import ItemStateFormatError, ItemStates, problem_of
from tracker.items.vectors import nearest_rows
from tracker.kafka.forget import ended_offset, pending_of, relays, tombstone
from tracker.kafka.pseudonyms import PseudonymError, Pseudonyms
from tracker.kafka.records import read_every_record
from tracker.kafka.user_keys import UserKeys
from tracker.kernels.row_bytes import (
    FORGOTTEN_PREFIX,
    ITEM_PREFIX,
    LEARNED_KEY,
    WAITING_PREFIX,
    NewerRowError,
)
from tracker.recommend.learned_row import LearnedRowError, decode_learned
from tracker.settings import Settings, SettingsError, load_settings
from tracker.store.partition_store import PositionError, decode_position
from tracker.store.row_cipher import RowCipher
from tracker.stream.forgotten import Forgotten
from tracker.stream.side import OpenVerdictError
from tracker.users.layout import in_new_partition, is_whole, last_time_of, offset_of
from tracker.users.seen import SeenFormatError
from tracker.users.states import NewerArtifactError, StateFormatError


@dataclass(frozen=True)
class Target:
    """A kind of input: how one is made up, and what reads it.

    `weight` is the share of the short run, `most_bytes` what one input may make a reader allocate.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    weight: float = 1.0
    most_bytes: int = 64 * 1024 * 1024


# Events.

EVENTS: tuple[dict[str, Any], ...] = (
    {"user_id": "u1", "item_id": "i1", "kind": "view", "timestamp": START},
    {
        "user_id": "u1", "item_id": "i2", "kind": "rate", "timestamp": "2024-01-01T00:00:00Z",
        "scene": "home", "value": 4.5, "event_id": "e1",
    },
    {"user_id": "u1", "retracts": "e1", "timestamp": START + 5.0},
    {"user_id": "u1", "item_id": "i2", "takes_back": "cart"},
    {"user_id": "u1", "was": "visitor-1"},
    {"schema": {}, "payload": {"user_id": "u1", "item_id": "i1", "kind": "view", "timestamp": 1}},
)  # fmt: skip

FOREIGN: tuple[dict[str, Any], ...] = (
    {
        "event_name": "add_to_cart", "user_pseudo_id": "p", "event_timestamp": "1700000000000000",
        "items": [{"item_id": "a", "quantity": 2}, {"item_id": "b"}],
        "event_params": [{"key": "item_list_name", "value": {"string_value": "home"}}],
    },
    {
        "type": "track", "event": "Order Completed", "userId": "u", "messageId": "m",
        "timestamp": "2024-01-01T00:00:00Z",
        "properties": {"products": [{"product_id": "a", "quantity": 1}], "list_id": "x"},
    },
    {"batch": [{"type": "page", "userId": "u"}, {"event": "Product Viewed", "userId": "u"}]},
    {"type": "identify", "userId": "u", "anonymousId": "v"},
    {
        "specversion": "1.0", "id": "1", "source": "s", "type": "shop.view",
        "time": "2024-01-01T00:00:00Z",
        "data": {"user_id": "u", "item_id": "i", "event_name": "view_item", "kind": "view"},
    },
    {"specversion": "1.0", "id": 1, "data_base64": "eyJ1c2VyX2lkIjoidSJ9"},
    {
        "action_name": "item_view", "client_id": "c", "user_id": "u", "query_id": "q",
        "timestamp": "2024-01-01T00:00:00Z",
        "event_attributes": {"object": {"object_id": "a", "object_id_field": "product"}},
    },
    {
        "event": "unstruct", "domain_userid": "d", "event_id": "e",
        "collector_tstamp": "2024-01-01 00:00:00.000",
        "unstruct_event": '{"data":{"schema":"iglu:x/y","data":{"type":"product_view"}}}',
    },
)  # fmt: skip

_samples = tuple(map(encoded, (*EVENTS, *FOREIGN)))

event_bytes = st.one_of(
    objects(EVENTS).map(encoded),
    objects(FOREIGN).map(encoded),
    st.lists(objects((*EVENTS, *FOREIGN)), max_size=4).map(encoded),
    changed(_samples),
    values.map(encoded),
    st.binary(max_size=32),
)

FORMATS = ("own", *BUILT_IN, "cloudevents", *(f"cloudevents:{name}" for name in BUILT_IN))


@cache
def _reader(name: str) -> EventReader:
    return EventReader(Kinds.default(), dialect=None if name == "own" else load_dialect(name))


def read_events(chunk: tuple[str, list[bytes]]) -> None:
    """Read records of a dialect as the stream, and what it refuses as the commands."""
    name, records = chunk
    reader = _reader(name)
    arrivals = Arrivals.of_file(len(records), 2e9)
    batch, rejected = reader.read("events", 0, records, list(range(len(records))), arrivals)
    assert np.isfinite(batch.times).all()
    assert np.isfinite(batch.weights).all()
    assert all(rejection.message for _, rejection in rejected)
    for _, rejection in rejected:
        msgspec.json.encode(rejection)
    for record in records:
        with suppress(RejectedEventError):
            for event in events_in(record, reader.dialect):
                msgspec.json.encode(event)


# Rows.


@cache
def _lived_in() -> tuple[World, list[bytes], list[bytes]]:
    """Return a world whose users are real ones, with their rows of states and seen sets."""
    world = World(40, users=6, ring=8, ring_evict=2, seen_bits=1024, seen_capacity=60)
    for user in range(3):
        world.send(*likes(user, range(user, 12 * (user + 1)), scene="home", id=f"e{user}"))
    world.send({"user": 1, "retracts": "e1"}, {"user": 1, "retracts": "unknown"})
    states = world.states.pack(np.arange(3))
    kept = world.users.seen_slots[:3]
    return world, states, world.users.seen.pack(kept[kept >= 0])


def _user_rows() -> tuple[bytes, ...]:
    return tuple(_lived_in()[1])


def _item_rows() -> tuple[bytes, ...]:
    world = _lived_in()[0]
    made = world.item_states.pack(np.arange(4))
    return (*made, *(path.read_bytes() for path in sorted(GOLDEN.glob("item_row_*.bin"))))


def read_users_rows(given: tuple[bytes, bytes]) -> None:
    """Load a state and a seen set, apply events to them, make a list, and write both."""
    world = _lived_in()[0]
    state, seen = given
    table = {b"uu4": state, b"su4": seen}
    problems: list[str] = []
    world.users.on_unreadable = lambda key, row, problem: problems.append(problem)
    slots = np.array([4])
    if is_whole(state):  # as a command that moves states to another partition does
        moved = in_new_partition(state)
        assert is_whole(moved)
        assert offset_of(moved) <= 0
        last_time_of(moved)
    world.users.clear(slots)
    try:
        world.users.load(["u4"], slots, lambda keys: [table.get(key) for key in keys])
    except (NewerRowError, NewerArtifactError):
        return
    finally:
        world.users.on_unreadable = lambda key, row, problem: None
    world.users.last_times([state])
    with np.errstate(all="ignore"):
        world.recommend([4], now=START + 5000.0, scene="home")
        world.recommender.update(
            world.users,
            world.batch([*likes(4, [1, 2, 3], id="e"), {"user": 4, "retracts": "e1"}]),
        )
        world.recommend([4], now=START + 9000.0)
    dumped = dict(world.users.dump(["u4"], slots))
    with suppress(StateFormatError):
        world.users.load(["u4"], slots, lambda keys: [dumped.get(key) for key in keys])
    for table_of in (world.states, world.users.seen):
        table_of.problem_of(state)
        table_of.problem_of(seen)
    with suppress(StateFormatError, SeenFormatError, NewerArtifactError):
        world.states.unpack(slots, [state], 5)
        world.users.seen.unpack(world.users.seen.allocate(1), [seen])
    world.users.clear(slots)
    world.states.clear(slots)


def read_item_rows(row: bytes) -> None:
    """Read an item row, apply events to it, show it in the view, and write it."""
    world = _lived_in()[0]
    problem_of(row)
    states = ItemStates(2)
    try:
        states.unpack(np.array([0]), [row])
    except ItemStateFormatError:
        return
    world.view.update([row], np.array([world.items.hashes[0]], np.uint64))
    with np.errstate(all="ignore"):
        events = decode_block((GOLDEN / "item_events_2.bin").read_bytes())
        apply_item_events(states, np.zeros(len(events), np.int64), events)
        world.recommend([1, -1], now=START + 9000.0)
    states.unpack(np.array([1]), states.pack(np.array([0])))
    states.follow(FORMER)


# The changelog of a partition, and what is handed on to it.


@cache
def _folder() -> Path:
    """Return a folder for files of this process, which goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _worker() -> tuple[WorkerState, dict[bytes, bytes]]:
    """Return a worker that takes what is handed on, and the rows of its changelog."""
    worker = WorkerState(_folder() / "worker", hands_over=True)
    worker.send(*(like("ada", f"i{n}", time=NOW + n) for n in range(20)), like("bob", "i1"))
    worker.commit()
    stored: dict[bytes, bytes] = {}
    for key in _keys(worker):
        row: Any = worker.databases["users"][key]
        stored[key] = row
    return worker, stored


def _keys(worker: WorkerState) -> list[bytes]:
    keys: Any = worker.databases["users"].keys()
    return list(keys)


def read_changelog(given: tuple[list[tuple[int, bytes]], bytes]) -> None:
    """Open a partition over damaged rows, and take events and commit there."""
    worker, stored = _worker()
    names = sorted(stored)
    batch = WriteBatch(raw_mode=True)
    for key, row in stored.items():
        batch.put(key, row)
    changes, more = given
    added = [b"oada", LEARNED_KEY]
    for at, row in changes:
        key = (names + added)[at % (len(names) + len(added))]
        batch.put(key, row)
    batch.put(b"x" + more, more)
    worker.databases["users"].write(batch)
    try:
        worker.restart()
        worker.send(like("ada", "i3"), like("bob", "i4"), like("new", "i5"))
        worker.commit()
    except (Explained, LearnedRowError, NewerRowError):
        pass
    finally:
        clean = WriteBatch(raw_mode=True)
        for key in _keys(worker):
            clean.delete(key)
        worker.databases["users"].write(clean)


_header_text = st.one_of(
    st.integers(-2, 2**64).map(lambda number: str(number).encode()),
    st.sampled_from([b"", b"0", b"1", b"murmur2", b"-1", "²".encode(), b"9" * 400, b"\xff"]),
    st.binary(max_size=6),
    st.none(),  # Kafka has headers without a value
)

_homes = st.one_of(
    _header_text,
    st.sampled_from([b"0/4", b"3/4,0/2", b"1/2,", b"5/4", b"0/0", b"1/" + b"9" * 18, b"0/4" * 99]),
)

_handed_headers = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("partition", "offset", "time", "time_type", "partitioner"), _header_text),
        "holds": st.one_of(st.just(b"state"), _header_text),
        "place": st.one_of(st.sampled_from([b"1-5", b"9-1", b"0-" + b"9" * 18]), _header_text),
        "homes": _homes,
    },
).flatmap(
    lambda fields: st.sampled_from(
        [
            {
                "partition": b"1", "offset": b"5", "time": b"", "time_type": b"1",
                "partitioner": b"murmur2",
            } | fields,
            {
                "partition": b"9", "offset": b"5", "time": b"1700000000000", "time_type": b"1",
                "partitioner": b"murmur2",
            } | fields,
            {
                "partition": b"17", "offset": b"5", "time": b"", "time_type": b"1",
                "partitioner": b"murmur2", "place": b"1-5", "homes": b"0/2",
            } | fields,
            {
                "partition": b"13", "offset": b"5", "time": b"", "time_type": b"1",
                "partitioner": b"murmur2", "holds": b"state",
            } | fields,
            fields,
        ]
    )
)  # fmt: skip


def read_handed(records: list[tuple[bytes | None, dict[str, bytes | None]]]) -> None:
    """Take records of the topic of handed-on events, and commit."""
    worker, stored = _worker()
    batch = WriteBatch(raw_mode=True)
    for key, row in stored.items():
        batch.put(key, row)
    worker.databases["users"].write(batch)
    worker.restart()
    given = [
        FakeRecord(at, value, b"ada", int(NOW * 1000), 1, tuple(headers.items()))
        for at, (value, headers) in enumerate(records)
    ]
    with suppress(NewerRowError, NewerArtifactError, OpenVerdictError):
        worker.users.process(given, len(given), True)
        worker.commit()
    clean = WriteBatch(raw_mode=True)
    for key in _keys(worker):
        clean.delete(key)
    worker.databases["users"].write(clean)


# What items of one partition have, and those that wait for a row.


@cache
def _told() -> tuple[WorkerState, dict[bytes, bytes]]:
    """Return a worker whose items were told of events, and the rows of their changelog."""
    worker = WorkerState(_folder() / "told")
    events = np.zeros(7, ITEM_EVENT)
    events["item"] = [hash_id("i1"), hash_id("i2"), 77, 77, 77, 78, hash_id("i500")]
    events["time"], events["weight"], events["sign"] = NOW, 1.0, 1
    events["source_offset"] = np.arange(len(events))
    worker.items.process([FakeRecord(0, encode_block(events, 2))], 1)
    worker.commit(worker.items)
    stored: dict[bytes, bytes] = {}
    for key, row in _rows_of(worker):
        stored[key] = row
    assert any(key.startswith(WAITING_PREFIX) for key in stored)
    return worker, stored


def _rows_of(worker: WorkerState) -> list[tuple[bytes, bytes]]:
    rows_there: Any = worker.databases["items"].items()
    return list(rows_there)


def read_items_changelog(given: tuple[list[tuple[int, bytes]], bytes, int]) -> None:
    """Open a partition of items over damaged rows and events that wait, and tell it of more."""
    worker, stored = _told()
    changes, more, item = given
    batch = WriteBatch(raw_mode=True)
    names = [*sorted(stored), WAITING_PREFIX + more, ITEM_PREFIX + more, b"x" + more]
    for key, row in stored.items():
        batch.put(key, row)
    for at, row in changes:
        batch.put(names[at % len(names)], row)
    worker.databases["items"].write(batch)
    try:
        worker.restart()
        for n in range(12):
            events = np.zeros(2, ITEM_EVENT)
            events["item"], events["time"], events["weight"] = [item, 77], NOW + n, 1.0
            events["sign"], events["source_offset"] = 1, 100 + n
            worker.items.process([FakeRecord(1 + n, encode_block(events, 2))], 2 + n)
        worker.items.sweep()
        worker.commit(worker.items)
    except (Explained, NewerRowError):
        pass
    finally:
        clean = WriteBatch(raw_mode=True)
        for key, _ in _rows_of(worker):
            clean.delete(key)
        worker.databases["items"].write(clean)


def _waiting_rows() -> list[bytes]:
    return [row for key, row in _told()[1].items() if key.startswith(WAITING_PREFIX)]


# Requests to forget, and the batches of records as a broker returns them.

_requests_to_forget = st.tuples(
    st.one_of(
        st.sampled_from([b"ada", b"\0audit/x", b"\xff", b""]), st.binary(max_size=6), st.none()
    ),
    st.one_of(
        objects(({"request": "r", "before": NOW, "everywhere": True}, {})).map(encoded),
        values.map(encoded),
        st.binary(max_size=8),
        st.just(b'{"x":' + b"[" * 5000),
        st.none(),
    ),
    st.dictionaries(st.just("applied"), _header_text),
)


class _Notes:
    def note(self, key: bytes, value: bytes | None) -> None:
        """Take a note."""


def read_forget(records: list[tuple[bytes | None, bytes | None, dict[str, bytes | None]]]) -> None:
    """Read records of the topic of requests to forget, and hashes of users who were forgotten."""
    for at, (key, value, headers) in enumerate(records):
        record = FakeRecord(at, value, key, headers=tuple(headers.items()))
        pending = pending_of(record)
        if pending is None:
            ended_offset(record)
            continue
        assert pending.user
        relays("forget", pending, 0, 3)
        tombstone("forget", 0, pending)
    forgotten = Forgotten(_Notes(), 5.0)
    with suppress(PseudonymError):
        forgotten.restore(
            [
                (FORGOTTEN_PREFIX + (key or b"").ljust(32, b"k"), value or b"")
                for key, value, _ in records
            ]
        )
    forgotten.forgotten_at("ada")
    forgotten.expire(NOW)


ENCRYPTED = b"a row of eight times some bytes " * 4
"""What the row in tests/golden is in the clear."""


def read_encrypted(record: tuple[bytes, bytes, bytes]) -> None:
    """Read a user's key and a row that may be encrypted by it; no made-up bytes are a row."""
    wrapped, key, value = record
    cipher = RowCipher(UserKeys(Pseudonyms("k" * 32), "t-user-keys", 0))
    cipher.keys.learn(b"~ada", wrapped)
    row = cipher.decrypt(key, value)
    assert row is None or row[:1] == b"\0" or row == ENCRYPTED, (key, value)
    cipher.encrypt([(key, value)])


def _batches() -> list[bytes]:
    made = []
    for codec in range(5):
        builder = _DefaultRecordBatchBuilderPy(2, codec, False, -1, -1, -1, 1 << 20)
        for n in range(3):
            builder.append(n, timestamp=1000, key=b"u", value=b"v" * 20, headers=[("h", b"1")])
        made.append(bytes(builder.build()))
    return made


def _with_checksum(batch: bytes) -> bytes:
    return batch[:17] + crc32c(batch[21:]).to_bytes(4, "big") + batch[21:]


def read_batches(data: bytes) -> None:
    """Read fetched batches of a topic whose records are all passed on."""
    kept = fetcher.MemoryRecords, fetcher.PartitionRecords
    try:
        read_every_record(["fuzzed"])
        size = int.from_bytes(data[8:12], "big", signed=True)
        if len(data) < 61 or size + 12 != len(data):
            return  # the fetcher gives whole batches
        records = fetcher.PartitionRecords(
            TopicPartition("fuzzed", 0), fetcher.MemoryRecords(data), [], 0, None, None, True, 1
        )
        for record in islice(records, 2000):
            assert record.offset >= 0
    finally:
        fetcher.MemoryRecords, fetcher.PartitionRecords = kept


_joining = msgspec.json.decode((GOLDEN / "joining_state_1.json").read_bytes())


def read_small_rows(row: bytes) -> None:
    """Read what may be a position or a row of what was learned."""
    with suppress(PositionError):
        decode_position(row)
    with suppress(LearnedRowError):
        decode_learned(row)
    with suppress(LearnedRowError):
        decode_learned(zlib.crc32(row[4:]).to_bytes(4, "little") + row[4:])


def read_block(block: bytes) -> None:
    """Read a block of item events, with the checksum that belongs to it and without."""
    sealed = block
    if len(block) >= 16 and len(block) % 8 == 0:
        bare = block[:4] + bytes(4) + block[8:]
        sealed = bare[:4] + _checksum(bare).to_bytes(4, "little") + bare[8:]
    for one in (block, sealed):
        with suppress(ItemEventFormatError):
            events = decode_block(one, 8)
            states = ItemStates(1)
            with np.errstate(all="ignore"):
                apply_item_events(states, np.zeros(len(events), np.int64), events)
            states.unpack(np.array([0]), states.pack(np.array([0])))


# Artifacts.

GOLDEN_ARTIFACT = GOLDEN / "artifact-1"


@cache
def _golden() -> tuple[dict[str, Any], dict[str, bytes]]:
    (folder,) = [path for path in GOLDEN_ARTIFACT.iterdir() if path.is_dir()]
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    manifest = msgspec.json.decode(files.pop("manifest.json"))
    return manifest, files


@cache
def _golden_with_nearest() -> dict[str, bytes]:
    """Return the files of the golden artifact as an indexer of today writes them."""
    manifest, files = _golden()
    arrays = safetensors.numpy.load(files["vectors.safetensors"])
    arrays["nearest"] = nearest_rows(arrays["full"], manifest["live"], 64)
    return {"vectors.safetensors": safetensors.numpy.save(arrays)}


def _with_nearest(changes: list[tuple[int, int, int]]) -> dict[str, bytes]:
    """Return the vectors with other numbers in `nearest`, where rows of items are expected."""
    arrays = safetensors.numpy.load(_golden_with_nearest()["vectors.safetensors"])
    nearest = arrays["nearest"].copy()
    for row, column, value in changes:
        nearest[row % len(nearest), column % nearest.shape[1]] = value
    return {"vectors.safetensors": safetensors.numpy.save(arrays | {"nearest": nearest})}


def read_artifact(given: tuple[dict[str, Any], dict[str, bytes]]) -> None:
    """Load an artifact whose hashes are right, and make a list by it."""
    fields, files = given
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    try:
        written = _golden()[1] | files
        if isinstance(fields.get("files"), dict):
            hashes = {name: sha256(data).hexdigest() for name, data in written.items()}
            fields["files"] |= {name: hashes[name] for name in fields["files"] if name in hashes}
        sequence = fields.get("sequence")
        if type(sequence) is not int or not 0 <= sequence < 10**12:
            sequence = 1
        try:
            version = version_name(sequence, _digest(fields))
        except (msgspec.EncodeError, UnicodeError, TypeError, ValueError, OverflowError):
            return
        fields["version"] = version
        (folder / version).mkdir()
        (folder / version / "manifest.json").write_bytes(encoded(fields))
        for name, data in written.items():
            (folder / version / name).write_bytes(data)
        set_latest(str(folder), version)
        try:
            artifact = Artifact.load(str(folder), device="cpu")
        except ArtifactError:
            return
        artifact.vectors.row_of(artifact.vectors.hashes)
        artifact.index.search(artifact.vectors.vectors[:1], 3)
        world = World.of(artifact)
        some = artifact.vectors.ids[:4]
        world.send(*({"user": 0, "item": item, "time": START + n} for n, item in enumerate(some)))
        found = world.recommend([0, -1], now=START + 9.0).rows
        assert (found < artifact.vectors.live).all()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _artifacts() -> st.SearchStrategy[Any]:
    manifest, files = _golden()
    some = {name: data for name, data in files.items() if not name.endswith(".md")}
    one_file = st.sampled_from(sorted(some)).flatmap(
        lambda name: changed([some[name]], 3).map(lambda data: {name: data})
    )
    plain = st.builds(lambda: msgspec.json.decode(msgspec.json.encode(manifest)))
    newer = _golden_with_nearest()["vectors.safetensors"]
    row = st.one_of(st.integers(-2, 10), st.sampled_from([-(2**31), 2**31 - 1]))
    numbers = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 63), row), max_size=4)
    return st.one_of(
        st.tuples(plain, one_file),
        st.tuples(objects([manifest], 2), st.just({})),
        st.tuples(plain, changed([newer], 3).map(lambda data: {"vectors.safetensors": data})),
        st.tuples(plain, numbers.map(_with_nearest)),
    )


# Files.

ITEMS: tuple[dict[str, Any], ...] = (
    {"item_id": "a", "title": "A film", "categories": ["x", "y"], "attributes": {"year": 1979}},
    {"item_id": 7, "text": "words", "categories": "x|y", "attributes": {"tags": ["a"]}},
    {"item_id": "c", "title": 1917, "categories": '["a","b"]', "attributes": None},
)

PEOPLE: tuple[dict[str, Any], ...] = ({"user_id": "u", "attributes": {"age": 3, "tags": ["a"]}},)

HEADS = (b"\xef\xbb\xbf", b"\xff\xfe", b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"[", b"")

NAMES = ("x.jsonl", "x.json", "x.csv", "x.tsv", "x.jsonl.gz", "x.parquet", "x.zst", "x.xls", "x")

TABLES = (
    b"user_id,item_id,kind,timestamp\nu,i,view,1700000000\n",
    b"a\tb\n1\t2\n",
    b"# of May\nsep=;\r\nuser_id;item_id;kind;timestamp;value\r\n" * 2 + b'"u;i\r\n";1.5,3\r',
)


def _binary_files() -> list[bytes]:
    """Return a small workbook and a small Parquet file of events."""
    book = openpyxl.Workbook()
    for row in (list(EVENTS[0]), list(EVENTS[0].values()), [1, 2.5, True, datetime(2024, 1, 1)]):
        book.active.append(row)
    workbook, table = io.BytesIO(), io.BytesIO()
    book.save(workbook)
    rows = pa.table({"user_id": [b"u", b"v"], "timestamp": [datetime(2024, 1, 1)] * 2})
    pq.write_table(rows, table, compression="none")
    return [workbook.getvalue(), table.getvalue()]


_object_lines = objects((*EVENTS, *ITEMS, *PEOPLE)).map(encoded)

_files = st.tuples(
    st.sampled_from(NAMES),
    st.one_of(
        lines(_object_lines),
        st.tuples(st.sampled_from(HEADS), lines(_object_lines)).map(b"".join),
        changed([*TABLES, b"\n".join(map(encoded, (*EVENTS, *ITEMS)))]),
        changed(_binary_files(), most=3),
        st.binary(max_size=64),
    ),
)


def read_files(given: tuple[str, bytes]) -> None:
    """Read a file as a catalogue, as events and as users."""
    name, content = given
    path = _folder() / name
    path.write_bytes(content)
    with suppress(CatalogError):
        read_items([path], skip_bad=True)
    with suppress(EventFileError):
        read_event_log([path], Kinds.default(), 2e9)
    with suppress(EventFileError, DialectError):
        read_event_log([path], Kinds.default(), 2e9, event_reading(dialect=load_dialect("segment")))
    with suppress(UserFileError):
        read_users([path])
    path.unlink()


def _toml_samples() -> list[bytes]:
    folder = resources.files("tracker") / "dialects"
    return [
        *((folder / f"{name}.toml").read_bytes() for name in BUILT_IN),
        b"unknown = 1.0\nreplace = true\n[kinds]\nview = 1.0\n"
        b'rate = {weight = 2.0, curve = "rating"}',
        b'user = "a"\nitem = "b[].c"\nkind = "=view"\nbase = "ga4"\n[join]\nwords = ["a"]\n',
        b'user = "a[0]"\nitem = "b[k=v].c"\nkind = ["a.b", "c"]\nothers = "ignore"\n',
        b"a = " + b"[" * 3000,
        b"[kinds]\nview = " + b"9" * 5000,
        'user = "a[²]"\nitem = "b"\nkind = "c"\n'.encode(),
    ]


def read_toml(content: bytes) -> None:
    """Read a file as one of weights and as one of a dialect, and use it."""
    path = _folder() / "x.toml"
    path.write_bytes(content)
    try:
        kinds = Kinds.load(path)
        for name in kinds.table:
            with suppress(ValueError):
                assert np.isfinite(kinds.weight(name, 2.0))
    except KindsFileError:
        pass
    try:
        dialect = load_dialect(str(path))
    except DialectError:
        return
    assert isinstance(dialect, TableDialect)
    for record in _samples:
        with suppress(RejectedEventError):
            events_in(record, dialect)


# Settings and HTTP.


def read_settings(environ: dict[str, str]) -> None:
    """Read settings from the environment, and what the settings are made into."""
    try:
        settings = load_settings(environ)
    except SettingsError:
        return
    settings.public()
    _ = settings.bootstrap


_environ = st.dictionaries(
    st.sampled_from(sorted(Settings.model_fields)).map(lambda name: f"TRACKER_{name.upper()}"),
    st.one_of(texts, values.map(lambda value: encoded(value).decode())),
    max_size=4,
)

BODIES: tuple[dict[str, Any], ...] = (
    {"events": [{"item_id": "i1", "kind": "view", "timestamp": NOW, "value": 2.0}], "k": 5},
    {"weights": {"like": 2.0}, "add": [{"item_id": "i2"}], "drop": [0, 1], "at": NOW},
    {"user_id": "ada", "items": ["i1", "i2"], "scene": "home", "at": NOW},
    {"events": list(EVENTS)},
    {"scene": "home", "exclude": ["i1"], "diversity": 0.5, "explain": "parts"},
)

_bodies = st.one_of(
    objects(BODIES).map(encoded), values.map(encoded), changed(list(map(encoded, BODIES)))
)

_SHAPES = (GuestBody, WhatIfBody, ScoreBody, EventsBody, ListQuery)


def read_bodies(raw: bytes) -> None:
    """Decode a body of each route."""
    for shape in _SHAPES:
        with suppress(ProblemError):
            _decoded(raw, shape)


_query_names = st.sampled_from(["k", "scene", "at", "exclude", "q", "x"])

_requests = st.lists(
    st.tuples(
        st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
        st.sampled_from([
            "recommendations", "score", "events", "users/ada/what-if", "users/ada/recommendations",
            "users/ada", "items", "items/i1", "items/i1/similar", "users/ada/why/i3",
            "users/ada/outlook", "users/%00/what-if", "users/%ff", "users/ada/history",
        ]),
        st.dictionaries(_query_names, texts, max_size=2),
        _bodies,
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip


def answer_requests(requests: list[tuple[str, str, dict[str, str], bytes]]) -> None:
    """Send requests to the API of a worker; no answer is a bug."""

    async def ask(world: ApiWorld) -> None:
        for method, path, query, body in requests:
            clean = {name: text.encode("utf-8", "replace").decode() for name, text in query.items()}
            try:
                answer = await world.client.request(
                    method, f"/v1/{path}", params=clean, data=body,
                    headers={"Content-Type": "application/json"},
                )  # fmt: skip
            except (aiohttp.InvalidURL, ValueError):
                continue
            assert answer.status != 500, (method, path, query, body, await answer.text())

    folder = Path(tempfile.mkdtemp(dir=_folder()))
    try:
        with_api(folder, ask)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def targets() -> tuple[Target, ...]:
    """Return all targets; what their inputs are changed from is made when the first is drawn."""
    users = st.deferred(lambda: rows(_user_rows()))
    seen = st.deferred(lambda: rows(_lived_in()[2]))
    items = st.deferred(lambda: rows(_item_rows()))
    waiting = st.deferred(lambda: changed(_waiting_rows()))
    batches = st.deferred(lambda: changed(_batches(), 3))
    learned = [path.read_bytes() for path in sorted(GOLDEN.glob("learned_row_*.bin"))]
    positions = [path.read_bytes() for path in sorted(GOLDEN.glob("position_*.json"))]
    blocks = [path.read_bytes() for path in sorted(GOLDEN.glob("item_events_*.bin"))]
    wrapped = [path.read_bytes() for path in sorted(GOLDEN.glob("user_key_*.bin"))]
    encrypted = [path.read_bytes() for path in sorted(GOLDEN.glob("encrypted_row_*.bin"))]
    any_row = st.one_of(users, seen, rows(learned), changed(positions))
    handed = st.one_of(event_bytes, objects([_joining]).map(encoded), st.none())
    return (
        Target(
            "events", st.tuples(st.sampled_from(FORMATS), st.lists(event_bytes, max_size=6)),
            read_events, 3.0,
        ),
        Target("user-rows", st.tuples(users, seen), read_users_rows, 2.0),
        Target("item-rows", items, read_item_rows),
        Target(
            "changelog",
            st.tuples(
                st.lists(st.tuples(st.integers(0, 9), any_row), max_size=3), st.binary(max_size=9)
            ),
            read_changelog, 0.5,
        ),
        Target(
            "hand-over", st.lists(st.tuples(handed, _handed_headers), min_size=1, max_size=4),
            read_handed, 0.5,
        ),
        Target(
            "items-changelog",
            st.tuples(
                st.lists(
                    st.tuples(
                        st.integers(0, 9),
                        st.one_of(items, waiting, changed(positions)),
                    ),
                    max_size=3,
                ),
                st.binary(max_size=9),
                st.sampled_from([77, 78, 79, 2**64 - 1, hash_id("i1")]),
            ),
            read_items_changelog, 0.5,
        ),
        Target("forget", st.lists(_requests_to_forget, max_size=4), read_forget),
        Target(
            "encrypted-rows",
            st.tuples(
                changed(wrapped),
                st.sampled_from([b"u~ada", b"s~ada", b"xo~ada", b"u~bob"]),
                changed(encrypted),
            ),
            read_encrypted,
        ),
        Target(
            "batches",
            st.one_of(batches.map(_with_checksum), batches),
            read_batches,
        ),
        Target("small-rows", changed([*positions, *learned]), read_small_rows),
        Target("item-blocks", changed(blocks), read_block),
        Target("artifacts", st.deferred(_artifacts), read_artifact, 0.5),
        Target("files", _files, read_files),
        Target("toml", changed(_toml_samples(), 3), read_toml),
        Target("settings", _environ, read_settings, 0.5),
        Target("bodies", _bodies, read_bodies),
        Target("http", _requests, answer_requests, 0.1),
    )  # fmt: skip
