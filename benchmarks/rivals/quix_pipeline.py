"""A well-written Quix Streams pipeline: state as bytes, default checkpoints, msgspec for JSON.

Run: python -m benchmarks.rivals.quix_pipeline (settings in BENCH_* variables).
"""

import os
from typing import Any

import msgspec
import numpy as np
from quixstreams import Application, State

from benchmarks.rivals.job import Event, Job

job = Job()
decoder = msgspec.json.Decoder(Event)
encoder = msgspec.json.Encoder()
app = Application(
    broker_address=os.environ["BENCH_BROKERS"],
    consumer_group=os.environ["BENCH_NAME"],
    auto_offset_reset="earliest",
    state_dir=os.environ["BENCH_DATA"],
    loglevel="WARNING",
)
events = app.topic(os.environ["BENCH_EVENTS"], value_deserializer="bytes", key_deserializer="bytes")
output = app.topic(os.environ["BENCH_OUTPUT"], value_serializer="bytes", key_serializer="bytes")


def recommend(value: bytes, state: "State[Any, Any]") -> bytes:
    """Update the user's sums and return the list as JSON."""
    event = decoder.decode(value)
    stored = state.get_bytes("sums")
    if stored is None:
        sums, time = np.zeros((5, job.dim), np.float32), event.timestamp
    else:
        time = float(np.frombuffer(stored, np.float64, 1)[0])
        sums = np.frombuffer(stored, np.float32, offset=8).reshape(5, job.dim)
    sums, time = job.update(sums, time, event)
    state.set_bytes("sums", np.float64(time).tobytes() + sums.tobytes())
    return encoder.encode(job.recommend(event.user_id, sums))


stream = app.dataframe(events)
stream = stream.apply(recommend, stateful=True)
stream = stream.to_topic(output)

if __name__ == "__main__":
    app.run()
