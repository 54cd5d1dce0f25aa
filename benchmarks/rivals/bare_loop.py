"""The least that can be done: read, search by the event's own item, write. Nothing is kept.

One process, the C client, chunks of 1,000 events, one search a chunk. A list has the fields of the
tracker's, and so about as many bytes; they are joined from pieces that are encoded beforehand.
Nothing is guaranteed: no state, no commit, no transaction.

Run: python -m benchmarks.rivals.bare_loop (settings in BENCH_* variables).
"""

import os

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.rivals.job import Event, Job, K

CHUNK = 1000
TAIL = (
    b'],"artifact":"000001-00000000","latency_ms":1.5,"interests":['
    b'{"label":"Dept 1","strength":0.5,"change":0.1},'
    b'{"label":"Dept 2","strength":0.3,"change":0.1},'
    b'{"label":"Dept 3","strength":0.2,"change":0.1}],"version":0}'
)


def clients() -> tuple[Consumer, Producer, list[TopicPartition]]:
    """Return a reader of all events from the first on, and a writer."""
    brokers = {"bootstrap.servers": os.environ["BENCH_BROKERS"]}
    consumer = Consumer(
        {
            **brokers,
            "group.id": os.environ["BENCH_NAME"],
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
            "check.crcs": False,
        }
    )
    places = [
        TopicPartition(os.environ["BENCH_EVENTS"], partition, 0)
        for partition in range(int(os.environ["BENCH_PARTITIONS"]))
    ]
    consumer.assign(places)
    producer = Producer({**brokers, "linger.ms": 1, "queue.buffering.max.messages": 1_000_000})
    return consumer, producer, places


def main() -> None:
    """Answer events until the process is ended."""
    job, decode = Job(), msgspec.json.Decoder(Event).decode
    pieces = [
        b'{"item_id":"%b","channel":"content","because":["%b"],"score":'
        % (one.encode(), one.encode())
        for one in job.ids
    ]
    consumer, producer, _ = clients()
    output = os.environ["BENCH_OUTPUT"]
    while True:
        records = [one for one in consumer.consume(CHUNK, 0.005) if one.error() is None]
        if not records:
            continue
        events = [decode(one.value()) for one in records]
        rows = [job.rows[event.item_id] for event in events]
        scores, found = job.index.search(job.vectors[rows], K)
        for record, event, user, near in zip(
            records, events, scores.tolist(), found.tolist(), strict=True
        ):
            place = f"{record.topic()}-{record.partition()}-{record.offset()}"
            head = f'{{"id":"{place}","user_id":"{event.user_id}","timestamp":{event.timestamp},'
            items = b",".join(
                pieces[row] + b"%.6f}" % score for row, score in zip(near, user, strict=True)
            )
            value = b'%b"scene":"home","items":[%b%b' % (head.encode(), items, TAIL)
            producer.produce(output, value, record.key(), record.partition())
        producer.poll(0)


if __name__ == "__main__":
    main()
