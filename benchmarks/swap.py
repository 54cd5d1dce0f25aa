"""Latency while a worker changes to a new artifact, beside the same worker before.

The vectors are made up. Two versions of the same catalogue are published; events come at a fixed
rate (open loop), and LATEST names the second version after a while. "During" are the events that
come from then until two seconds after the worker says that it uses the new one.

    OMP_NUM_THREADS=1 python -m benchmarks.swap --items 1000000
"""

import argparse
import json
import threading
import time
from pathlib import Path

from benchmarks.latency import WARM, WARM_RATE, quantiles
from benchmarks.results import add_option, store
from benchmarks.systems import Stored, SyntheticEncoder, Systems, open_systems, until
from indexer.data.catalog import Catalog, Item
from indexer.items.assemble import assemble, write_version
from indexer.items.options import BuildOptions
from tracker.artifact.artifact import Artifact
from tracker.artifact.models import UNTRAINED
from tracker.artifact.versions import list_versions, set_latest

AFTER = 2.0
POLL = 1.0


def publish_two(root: Path, items: int) -> None:
    """Write two versions of one catalogue, unless they are there."""
    if root.exists() and len(list_versions(root)) > 1:
        return
    catalog = Catalog(
        [
            Item(item_id=f"item{row:07d}", title=f"Product {row}", categories=[f"Dept {row % 40}"])
            for row in range(items)
        ]
    )
    parts = assemble(catalog, SyntheticEncoder(), root, BuildOptions())
    for _ in range(2):
        write_version(root, parts, UNTRAINED, None)


def parts_of(
    events: list[Stored], lists: list[Stored], bounds: tuple[float, float, float]
) -> dict[str, list[float]]:
    """Return the milliseconds of the events before and during a change.

    Args:
        events: of the run.
        lists: their lists, which name the last event that they answer.
        bounds: milliseconds since the epoch: begin of the measurement, and begin and end of the
            change.
    """
    appended = {(one.partition, one.offset): one.ms for one in events}
    begin, change, end = bounds
    found: dict[str, list[float]] = {"before": [], "during": []}
    for one in lists:
        _, partition, offset = json.loads(one.value)["id"].rsplit("-", 2)
        at = appended[int(partition), int(offset)]
        if begin <= at < end:
            found["before" if at < change else "during"].append(float(one.ms - at))
    return found


def measure(systems: Systems, rate: float, seconds: float) -> dict[str, float]:
    """Return the quantiles before and during a change, and how long it took."""
    name = f"swap{systems.runs}"
    root = systems.folder / "artifacts"
    versions = sorted(list_versions(root))[-2:]
    set_latest(root, versions[0])
    systems.topics(name)
    events = f"{name}-events"
    settings = {"TRACKER_ARTIFACT_POLL_SECONDS": str(POLL)}
    with systems.tracker(name, **settings) as process:
        systems.send(events, WARM, False, 1, WARM_RATE)
        systems.committed(process, name, WARM)
        begin, count = 1000 * time.time(), int(rate * seconds)
        sending = threading.Thread(target=systems.send, args=(events, count, False, 2, rate))
        sending.start()
        time.sleep(seconds / 3)
        change = 1000 * time.time()
        set_latest(root, versions[1])
        used = f"using artifact {versions[1]} instead"
        both = 0.0

        def is_used() -> bool:
            nonlocal both
            both = max(both, memory_mib(process.pid) + sum(map(memory_mib, children(process.pid))))
            return used in process.log.read_text()

        until(is_used, process, 600)
        took = time.time() - change / 1000
        sending.join()
        systems.committed(process, name, WARM + count)
        memory, after = peak_mib(process.pid), memory_mib(process.pid)
    end = change + 1000 * (took + AFTER)
    lists = systems.read(f"{name}-recommendations")
    found = parts_of(systems.read(events), lists, (begin, change, end))
    result: dict[str, float] = {
        "seconds": took, "memory_mib": memory, "with_check_mib": both, "after_mib": after,
    }  # fmt: skip
    for part, times in found.items():
        result |= {f"{part}_{which}": value for which, value in quantiles(times).items()}
    return result


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, such as the one that checks a version."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_mib(pid: int, field: str = "VmRSS") -> float:
    """Return the memory of a process, files that are mapped counted in; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = text.partition(f"{field}:")[2].split()
    return int(found[0]) / 1024 if found else 0.0


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has had."""
    return memory_mib(pid, "VmHWM")


def main() -> None:
    """Measure some changes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=90.0, help="of events; a third before")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept, its artifacts taken again; a new one")
    add_option(parser)
    given = parser.parse_args()
    runs = []
    with open_systems(given.folder, given.items, given.users, publish_two) as systems:
        for _ in range(given.repeat):
            runs.append(measure(systems, given.rate, given.seconds))
            print(runs[-1], flush=True)
        live = Artifact.load(systems.folder / "artifacts").manifest.live
    store(given.result, {"runs": runs, "items": live, "rate": given.rate})


if __name__ == "__main__":
    main()
