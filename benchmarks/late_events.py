"""Time of an event that comes late, beside one that comes in order (processor time, one thread).

The made-up catalogue and users of `benchmarks.recommend`. One more event of each user is applied,
in chunks of users: newer than the user's others, or older than about half of those in the ring.
Users whose events all fit the ring have their interests made anew by a late event; with more events
it joins them. The state of a user encoder (random weights) is made anew from the ring in both
cases.

    python -m benchmarks.late_events --items 20000 --users 4000 --batch 256
"""

import argparse
import copy
import json
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recommend import DAY, START, Job, with_tower
from benchmarks.results import add_option, store
from tracker.events.batch import EventBatch
from tracker.recommend.recommender import Recommender

FIT, OVERFLOW = 15, 40
"""Events of a user before: all in the ring, and more than it holds."""


def next_events(job: Job, events: int, turn: int, late: bool) -> EventBatch:
    """Return one more event of each user: newer than all, or before about half of the ring.

    Args:
        job: with users of `events` events each, two a day.
        events: of a user.
        turn: seeds the items.
        late: how the events come.
    """
    users = job.users.states.capacity
    random = np.random.default_rng([events, turn])
    n_ring = job.users.states.head["n_ring"].astype(np.int64)
    back = n_ring // 2 if late else np.zeros(users, np.int64)
    begin = START + (events - back) * DAY / 2
    rows: NDArray[np.int64] = random.integers(0, len(job.items), users)
    return job.events_at(rows, begin + random.random(users) * DAY / 4, turn)


def microseconds(
    job: Job, recommender: Recommender, events: int, late: bool, batch: int, repeats: int
) -> float:
    """Return the median time of an event over chunks of `batch` users, each on the same rows."""
    taken = []
    for turn in range(repeats + 1):
        users = copy.deepcopy(job.users)
        wave = next_events(job, events, turn, late)
        size = len(wave)
        started = time.thread_time()
        for begin in range(0, size, batch):
            recommender.update(users, wave.take(np.arange(begin, min(begin + batch, size))))
        taken.append(1e6 * (time.thread_time() - started) / size)
    return float(np.median(taken[1:]))  # the first is for warming up


def measure(items: int, users: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Return microseconds an event, in order and late, of users with few and with many events."""
    lines = []
    for events in (FIT, OVERFLOW):
        job = Job(items, users, events)
        with_encoder = Recommender(with_tower(job.artifact), job.view)
        for name, recommender in (("no encoder", job.recommender), ("encoder", with_encoder)):
            recommender.carry_over(job.users.states, np.arange(users))
            found = {
                way: microseconds(job, recommender, events, way == "late", batch, repeats)
                for way in ("in_order", "late")
            }
            lines.append({"events": events, "fit": events == FIT, "with": name, **found})
    return lines


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=256, help="events of a chunk, one a user")
    parser.add_argument("--repeats", type=int, default=9)
    add_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = measure(arguments.items, arguments.users, arguments.batch, arguments.repeats)
    store(arguments.result, {"microseconds": lines})
    print(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
