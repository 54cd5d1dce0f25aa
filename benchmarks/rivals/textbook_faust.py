"""The textbook Faust agent: a Record in, a JSON table, `topic.send` out.

Run: python -m benchmarks.rivals.textbook_faust (settings in BENCH_* variables).
"""

import os
from typing import Any

import faust
import numpy as np

from benchmarks.rivals.job import Event, Job

job = Job()
name = os.environ["BENCH_NAME"]
partitions = int(os.environ["BENCH_PARTITIONS"])
app = faust.App(
    name,
    broker=f"kafka://{os.environ['BENCH_BROKERS']}",
    store="rocksdb://?driver=rocksdict",
    datadir=os.environ["BENCH_DATA"],
    topic_partitions=partitions,
    topic_replication_factor=1,
    topic_disable_leader=True,
    table_standby_replicas=0,
    web_enabled=False,
    worker_redirect_stdouts=False,
    consumer_auto_offset_reset="earliest",
)


class Behaviour(faust.Record, serializer="json"):
    """One event."""

    user_id: str
    item_id: str
    kind: str
    timestamp: float


events = app.topic(os.environ["BENCH_EVENTS"], value_type=Behaviour, partitions=partitions)
output = app.topic(os.environ["BENCH_OUTPUT"], value_serializer="json", partitions=partitions)
states = app.Table("states", default=dict, partitions=partitions)


@app.agent(events)
async def recommend(stream: Any) -> None:
    """Update the user's sums and send a list, event by event."""
    async for event in stream:
        state = states[event.user_id]
        sums = np.array(state.get("sums", np.zeros((5, job.dim))), np.float32)
        sums, time = job.update(
            sums,
            state.get("time", event.timestamp),
            Event(event.user_id, event.item_id, event.kind, event.timestamp),
        )
        states[event.user_id] = {"sums": sums.tolist(), "time": time}
        await output.send(key=event.user_id, value=job.recommend(event.user_id, sums))


if __name__ == "__main__":
    app.finalize()
    app.worker_init()
    app.worker_init_post_autodiscover()
    faust.Worker(
        app, loglevel="warn", quiet=True, redirect_stdouts=False
    ).execute_from_commandline()
