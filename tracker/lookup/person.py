"""Everything that is kept of one user, as a JSON object: rows, what is owed, and records."""

import base64
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import msgspec
import numpy as np

from tracker.artifact.artifact import Artifact
from tracker.events.wire import hash_id
from tracker.items.vectors import ItemVectors
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import Topics, describe_topics, topics_of
from tracker.kafka.pseudonyms import Pseudonyms, pseudonyms_of
from tracker.kafka.records import read_every_record
from tracker.kernels.row_bytes import POSITION_KEY, keys_of_user, owed_key, seen_key, user_key
from tracker.lookup.changelogs import StateReader, check_key
from tracker.settings import Settings
from tracker.store.row_cipher import row_cipher
from tracker.users.config import InterestConfig
from tracker.users.seen import SeenFormatError, SeenSets
from tracker.users.states import StateFormatError, UserStates

ITEM_FIELDS = ("item", "medoid")
"""Fields of a row that hold hashes of items."""

Json = dict[str, Any]


async def export_user(
    settings: Settings, artifact: Artifact, user_id: str, records: bool = True
) -> Json | None:
    """Return all that is kept of a user in the topics; None if nothing is.

    1. Read the changelog of users: the row, the seen set, the list that is owed, and rows of the
       user that were set aside, in every partition.
    2. Read the topics of events, recommendations and rejected records, which the cluster keeps
       until their retention.
    3. Look the user up among the attributes of the artifact.

    Args:
        settings: where the brokers are.
        artifact: names of items, and attributes of users.
        user_id: id of the user; with a pseudonym, what has the id cannot be found.
        records: whether to read the topics of step 2.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: a topic does not exist.
        PseudonymError, UserKeyError: the states were made with other keys, or without one.
        NewerArtifactError, ArtifactError: as `StateReader.read`.
    """
    names, pseudonyms = topics_of(settings), pseudonyms_of(settings)
    name = pseudonyms.of_any(user_id)
    # 1. Read the changelog.
    rows = await _rows(settings, names, name, pseudonyms)
    reader = StateReader(settings, artifact)
    states = [
        describe_rows(name, partition, rows[partition], reader, artifact)
        for partition in sorted(rows)
        if rows[partition]
    ]
    person: Json = {"user_id": user_id, "states": states}
    if pseudonyms:
        person["pseudonym"] = name
    # 2. Read the other topics.
    if records:
        topics = [names.events, names.recommendations, names.rejected]
        if names.hand_over in await describe_topics(settings, [names.hand_over]):
            topics.append(names.hand_over)
        both = list(dict.fromkeys((user_id, name)))
        person["records"] = {topic: await _records(settings, topic, both) for topic in topics}
    # 3. Look up the attributes.
    person["attributes"] = _attributes(name, artifact)
    is_known = states or person["attributes"] or any(person.get("records", {}).values())
    return person if is_known else None


def describe_rows(
    user_id: str, partition: int, rows: dict[bytes, bytes], reader: StateReader, artifact: Artifact
) -> Json:
    """Return the rows that a partition has of a user, field by field.

    Args:
        user_id: name under which the user is kept.
        partition: number of the partition.
        rows: values by key: of the row, the seen set, the owed list, and those set aside.
        reader: reads states.
        artifact: names of items.
    """
    answer: Json = {"partition": partition}
    rest = dict(rows)
    row = rest.pop(user_key(user_id), None)
    if row is not None:
        try:
            states = reader.read([row])
        except StateFormatError as error:
            answer["row"] = _bytes(row) | {"problem": str(error)}
        else:
            answer["row"] = describe_row(states, 0, artifact.vectors)
    row = rest.pop(seen_key(user_id), None)
    if row is not None:
        answer["seen"] = _seen(row, artifact.manifest.interest, artifact.vectors)
    row = rest.pop(owed_key(user_id), None)
    if row is not None:
        answer["owed"] = _json_or_bytes(row)
    if rest:
        answer["set_aside"] = [{"key": key.hex()} | _bytes(row) for key, row in rest.items()]
    return answer


def describe_row(states: UserStates, slot: int, vectors: ItemVectors) -> Json:
    """Return every field of a row, those in use; hashes of items also as names if they are known.

    Args:
        states: the users' arrays.
        slot: slot of the user.
        vectors: names of items.
    """
    head = states.head[slot]
    interests = [
        _record(entry, vectors) | {"mean": mean.tolist()}
        for entry, mean in zip(
            states.interest_heads[slot, : int(head["n_slots"])],
            states.interest_means[slot],
            strict=False,
        )
    ]
    ring = states.ring[slot, : int(head["n_ring"])]
    return {
        "head": _record(head, vectors),
        "masses": states.masses[slot].tolist(),
        "sums": states.sums[slot].tolist(),
        "negative": states.negative[slot].tolist(),
        "hidden": states.hidden[slot].astype(float).tolist(),
        "pending": states.pending[slot, : int(head["n_pending"])].tolist(),
        "interests": interests,
        "ring": [_record(entry, vectors) for entry in ring],
    }


def _record(entry: Any, vectors: ItemVectors) -> Json:
    fields: Json = {
        name: None if entry[name] != entry[name] else entry[name].item()
        for name in entry.dtype.names
    }
    for name in ITEM_FIELDS:
        if name in fields:
            row = int(vectors.row_of(np.array([fields[name]], np.uint64))[0])
            fields[f"{name}_id"] = vectors.ids[row] if row >= 0 else None
    return fields


def _seen(row: bytes, config: InterestConfig, vectors: ItemVectors) -> Json:
    """Return a seen set: its bits, and the items of the catalogue that it answers to."""
    sets = SeenSets(config, 1)
    slot = sets.allocate(1)
    try:
        sets.unpack(slot, [row])
    except SeenFormatError as error:
        return _bytes(row) | {"problem": str(error)}
    is_used = vectors.table_row >= 0
    hashes, places = vectors.table_hash[is_used], vectors.table_row[is_used]
    has = sets.contains_many(np.repeat(slot, len(hashes)), hashes)
    return {
        "active": int(sets.active[0]),
        "counts": sets.counts[0].tolist(),
        "bits": [part.tobytes().hex() for part in sets.bits[0]],
        "items": [vectors.ids[place] for place in sorted(places[has].tolist())],
    }


def _attributes(user_id: str, artifact: Artifact) -> list[int]:
    """Return the numbers of the attributes that the artifact has by the hash of the user's id."""
    tower = artifact.models.tower
    if tower is None:
        return []
    numbers = tower.attributes.of(np.array([hash_id(user_id)], np.uint64))[0]
    return [number for number in numbers.tolist() if number]


async def _rows(
    settings: Settings, names: Topics, name: str, pseudonyms: Pseudonyms
) -> dict[int, dict[bytes, bytes]]:
    keys = keys_of_user(name)
    rows: dict[int, dict[bytes, bytes]] = {}
    async with aclosing(read_topic(settings, names.users_changelog)) as records:
        async for record in records:
            if record.key == POSITION_KEY:
                check_key(settings, names.users_changelog, record.value, pseudonyms)
            if record.key not in keys:
                continue
            mine = rows.setdefault(record.partition, {})
            if record.value is None:
                mine.pop(record.key, None)
            else:
                mine[record.key] = record.value
    for partition, mine in rows.items():
        cipher = await row_cipher(settings, pseudonyms, partition, name.encode())
        if cipher is not None:
            rows[partition] = cipher.decrypt_all(mine)
    return rows


async def _records(settings: Settings, topic: str, names: list[str]) -> list[Json]:
    """Return the records of a topic that have a name of the user as key, or in their value."""
    read_every_record([topic])
    keys = [name.encode() for name in names]
    quoted = [msgspec.json.encode(name) for name in names]
    mine = []
    async with aclosing(read_topic(settings, topic)) as records:
        async for record in records:
            value = record.value or b""
            if record.key in keys or (any(q in value for q in quoted) and _is_of(value, names)):
                mine.append(
                    {
                        "partition": record.partition,
                        "offset": record.offset,
                        "time": record.appended,
                        "value": None if record.value is None else _json_or_bytes(record.value),
                        "headers": _headers(record.headers),
                    }
                )
    return mine


def _is_of(value: bytes, names: list[str]) -> bool:
    fields = _json_or_bytes(value)
    return isinstance(fields, dict) and fields.get("user_id") in names


def _headers(headers: Iterable[tuple[str, bytes | None]]) -> Json:
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


def _json_or_bytes(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _bytes(value)


def _bytes(value: bytes) -> Json:
    return {"base64": base64.b64encode(value).decode()}
