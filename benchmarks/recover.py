"""Recovery of a lost disk, beside a bare read-and-WriteBatch of the same changelog.

Users get a few events each, so that their states are of a usual size. The worker is stopped in
order and started with its databases, then without them; the difference of the two is the recovery.
The bare loop reads the same topic with the C client and writes its rows into RocksDB in batches:
no checks, no newest-row rule.

    OMP_NUM_THREADS=1 python -m benchmarks.recover --users 100000
"""

import argparse
import shutil
import time
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from rocksdict import Options, Rdict, WriteBatch

from benchmarks.results import add_option, store
from benchmarks.swap import peak_mib
from benchmarks.systems import PARTITIONS, Systems, open_systems, until
from tracker.demo.local import answers_ok
from tracker.demo.processes import free_port

EACH = 5
"""Events a user."""


def bare(systems: Systems, topic: str, folder: Path) -> dict[str, float]:
    """Read a changelog from its begin, and write its rows into databases; return what it took."""
    begun = time.monotonic()
    consumer = Consumer(
        {
            "bootstrap.servers": systems.broker,
            "group.id": "bench-recover",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "check.crcs": False,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    options = Options(raw_mode=True)
    stores = [Rdict(str(folder / str(number)), options) for number in range(PARTITIONS)]
    rows = size = ended = 0
    while ended < PARTITIONS:
        batches: dict[int, WriteBatch] = {}
        for record in consumer.consume(5000, 1.0):
            if record.error():
                ended += 1
                continue
            number = record.partition()
            batch = batches.setdefault(number, WriteBatch(raw_mode=True))
            if record.value() is None:
                batch.delete(record.key())
            else:
                batch.put(record.key(), record.value())
                size += len(record.value())
            rows += 1
        for number, batch in batches.items():
            stores[number].write(batch)
    for one in stores:
        one.close()
    consumer.close()
    return {"seconds": time.monotonic() - begun, "rows": rows, "bytes": size}


def ready_seconds(systems: Systems, name: str) -> dict[str, float]:
    """Return the seconds in which a worker is ready, and its memory then."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/readyz"
    with systems.tracker(name, TRACKER_WEB_PORT=str(port)) as process:
        seconds = until(lambda: answers_ok(url), process, 1800)
        return {"seconds": seconds, "memory_mib": peak_mib(process.pid)}


def measure(systems: Systems, users: int) -> dict[str, float]:
    """Return the seconds of both, and how fast the worker's recovery is beside the bare one."""
    name, count = f"recover{systems.runs}", users * EACH
    systems.topics(name)
    systems.send(f"{name}-events", count, False, 1, None)
    with systems.tracker(name) as process:
        systems.committed(process, name, count)
    kept = ready_seconds(systems, name)
    shutil.rmtree(systems.states / name)
    lost = ready_seconds(systems, name)
    rival = bare(systems, f"{name}-users-changelog", systems.states / f"{name}-bare")
    seconds = lost["seconds"] - kept["seconds"]
    return {
        "users": users, "recovery": seconds, "start": kept["seconds"], "bare": rival["seconds"],
        "rows": rival["rows"], "bytes": rival["bytes"], "memory_mib": lost["memory_mib"],
        "bare_by_recovery": rival["seconds"] / seconds,
    }  # fmt: skip


def main() -> None:
    """Measure for each number of users."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--users", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    add_option(parser)
    given = parser.parse_args()
    runs = []
    with open_systems(given.folder, given.items, max(given.users)) as systems:
        for users in given.users:
            systems.users = users
            for _ in range(given.repeat):
                runs.append(measure(systems, users))
                print(runs[-1], flush=True)
    store(given.result, {"runs": runs, "items": given.items})


if __name__ == "__main__":
    main()
