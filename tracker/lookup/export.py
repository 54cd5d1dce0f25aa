"""Export of all users' vectors and interests from the changelog to a Parquet file."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracker.artifact.artifact import Artifact
from tracker.events.wire import hash_id, scene_code
from tracker.files import new_file, vector_lists
from tracker.items.view import ItemView
from tracker.lookup.changelogs import StateReader, user_rows
from tracker.recommend.recommender import Recommender
from tracker.settings import Settings
from tracker.users.config import InterestConfig
from tracker.users.readings import interest_strengths, interest_vectors, sum_masses
from tracker.users.rows import RequestBatch, UserRows
from tracker.users.states import UserStates

log = logging.getLogger(__name__)

BATCH = 4096
"""Number of users whose vectors are computed and written together."""


def user_schema(config: InterestConfig) -> pa.Schema:
    """Return the columns: id, counts, the encoder's vector, a vector a half-life, the interests."""
    vector = pa.list_(pa.float32())
    fields = [
        pa.field("user_id", pa.string()),
        pa.field("events", pa.int64()),
        pa.field("last_event", pa.float64()),
        pa.field("encoder", vector),
    ]
    for seconds in config.half_lives_seconds:
        fields += [
            pa.field(f"interest_{seconds:g}s", vector),
            pa.field(f"mass_{seconds:g}s", pa.float32()),
        ]
    interest = pa.struct([("label", pa.string()), ("strength", pa.float32()), ("vector", vector)])
    return pa.schema([*fields, pa.field("slots", pa.list_(interest))])


async def export_users(
    settings: Settings,
    artifact: Artifact,
    path: Path,
    now: float | None = None,
    scene: str | None = None,
    progress: Callable[[int], None] = lambda users: None,
) -> int:
    """Write the last committed state of every user as vectors; return the number of users.

    One partition of the changelog is in memory at a time. Rows of another basis or encoder are
    rebuilt from their rings first, as in serving. Without a trained encoder its column is null.
    Rows that cannot be read are left out, with a line in the log. A user
    of whom several partitions have a row is written once: see `user_rows`.

    Args:
        settings: where the brokers are.
        artifact: vectors, labels and the encoder.
        path: the file; it appears when all of it is written.
        now: time of the vectors in seconds; by default that of each user's last event.
        scene: scene of the encoder's vectors, if any.
        progress: called with the number of users written.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the changelog does not exist.
        StateFormatError, NewerArtifactError, ArtifactError: as `StateReader.read`.
        OSError: the file cannot be written.
    """
    recommender = Recommender(artifact, ItemView(artifact.vectors, artifact.manifest.item_counts))
    config, reader = artifact.manifest.interest, StateReader(settings, artifact)
    total = 0
    unreadable: list[str] = []
    with new_file(path) as temporary, pq.ParquetWriter(temporary, user_schema(config)) as writer:
        async for rows in user_rows(settings):
            for names, part in _parts(_readable(rows, reader, unreadable)):
                states = reader.read(part)
                recommender.carry_over(states, np.arange(len(names)))
                writer.write_table(_table(names, states, artifact, now, scene))
                total += len(names)
                progress(total)
    if unreadable:
        log.warning(
            "%d users are left out, because their rows cannot be read; the first are %s",
            len(unreadable), ", ".join(unreadable[:10]),
        )  # fmt: skip
    return total


def _readable(
    rows: dict[str, bytes], reader: StateReader, unreadable: list[str]
) -> dict[str, bytes]:
    """Return the rows that can be read; the users of the others, with why, go into a list.

    Rows of another layout or version are none of these: then the artifact is the wrong one.
    """
    bad = {user for user, row in rows.items() if reader.problem_of(row) == "damaged"}
    unreadable += [f"{user} (damaged)" for user in sorted(bad)]
    return {user: row for user, row in rows.items() if user not in bad} if bad else rows


def _parts(rows: dict[str, bytes]) -> Iterator[tuple[list[str], list[bytes]]]:
    names = sorted(rows)
    for start in range(0, len(names), BATCH):
        part = names[start : start + BATCH]
        yield part, [rows[name] for name in part]


def _table(
    names: list[str], states: UserStates, artifact: Artifact, now: float | None, scene: str | None
) -> pa.Table:
    config, slots = artifact.manifest.interest, np.arange(len(names))
    last = states.head["last_time"]
    times = last.copy() if now is None else np.full(len(names), now)
    schema = user_schema(config)
    columns: dict[str, Any] = {
        "user_id": names,
        "events": states.head["events"].astype(np.int64),
        "last_event": last,
        "encoder": pa.nulls(len(names), schema.field("encoder").type),
    }
    tower = artifact.models.tower
    if tower is not None:
        scenes = np.full(len(names), scene_code(scene), np.uint32)
        users = np.array([hash_id(name) for name in names], np.uint64)
        requests = RequestBatch(UserRows.of(states), slots, times, scenes, users)
        queries = tower.queries(requests)
        columns["encoder"] = vector_lists(queries[:, : tower.info.dim])
    masses = sum_masses(states, slots, np.maximum(times, states.head["ref_time"]))
    for number, seconds in enumerate(config.half_lives_seconds):
        sums = states.sums[:, number]
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        columns[f"interest_{seconds:g}s"] = vector_lists(sums / np.maximum(length, 1e-12))
        columns[f"mass_{seconds:g}s"] = masses[:, number]
    columns["slots"] = _interests(states, slots, times, artifact)
    return pa.table([pa.array(columns[name], schema.field(name).type) for name in schema.names],
                    schema=schema)  # fmt: skip


def _interests(
    states: UserStates, slots: np.ndarray[Any, Any], times: np.ndarray[Any, Any], artifact: Artifact
) -> list[list[dict[str, Any]]]:
    strengths, _ = interest_strengths(states, slots, times)
    vectors = interest_vectors(states, slots)
    medoids = artifact.vectors.row_of(states.interest_heads["medoid"].ravel()).reshape(
        strengths.shape
    )
    users = []
    for user in slots.tolist():
        order = np.argsort(-strengths[user], kind="stable")
        users.append(
            [
                {
                    "label": artifact.vectors.label(row) if row >= 0 else None,
                    "strength": float(strengths[user, place]),
                    "vector": vectors[user, place],
                }
                for place, row in zip(order.tolist(), medoids[user, order].tolist(), strict=True)
                if strengths[user, place] > 0
            ]
        )
    return users
