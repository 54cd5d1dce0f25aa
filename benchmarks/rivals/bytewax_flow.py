"""A well-written Bytewax dataflow with recovery: batches decoded, searched and encoded together.

The state of a user is one array; a snapshot of those that changed goes to the recovery store every
ten seconds, which is the default. The search of a batch is one call.

Run: python -m benchmarks.rivals.bytewax_flow (settings in BENCH_* variables).
"""

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import msgspec
import numpy as np
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from numpy.typing import NDArray

from benchmarks.rivals.job import SHARES, Event, Job

State = tuple[NDArray[np.float32], float]

job = Job()
decoder = msgspec.json.Decoder(Event)
encoder = msgspec.json.Encoder()


def keyed(messages: list[Any]) -> Iterable[tuple[str, Event]]:
    """Yield each event of a batch with its user."""
    for message in messages:
        event = decoder.decode(message.value)
        yield event.user_id, event


def update(state: State | None, event: Event) -> tuple[State, NDArray[np.float32]]:
    """Return the user's sums after an event, and what to search for."""
    sums, time = state or (np.zeros((5, job.dim), np.float32), event.timestamp)
    sums, time = job.update(sums, time, event)
    return (sums, time), SHARES @ sums


def recommend(
    batch: list[tuple[str, NDArray[np.float32]]],
) -> Iterable[KafkaSinkMessage[bytes, bytes]]:
    """Yield the lists of a batch of users."""
    queries = np.stack([query for _, query in batch])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True) + 1e-9
    for (user, _), value in zip(batch, job.search(queries), strict=True):
        found = encoder.encode({"user_id": user, "items": value})
        yield KafkaSinkMessage(user.encode(), found)


def build() -> Dataflow:
    """Return the dataflow."""
    brokers = [os.environ["BENCH_BROKERS"]]
    flow = Dataflow("bytewax")
    source = KafkaSource(brokers, [os.environ["BENCH_EVENTS"]], batch_size=1000)
    events = op.flat_map_batch("decode", op.input("events", flow, source), keyed)
    queries = op.stateful_map("update", events, update)
    lists = op.flat_map_batch("recommend", queries, recommend)
    op.output("lists", lists, KafkaSink(brokers, os.environ["BENCH_OUTPUT"]))
    return flow


if __name__ == "__main__":
    folder = Path(os.environ["BENCH_DATA"])
    folder.mkdir(parents=True, exist_ok=True)
    init_db_dir(folder, 1)
    cli_main(
        build(),
        epoch_interval=timedelta(seconds=10),
        recovery_config=RecoveryConfig(folder),
    )
