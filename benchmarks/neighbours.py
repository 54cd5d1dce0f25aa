"""How much of an uncapped count of neighbours the bounded lists of items hold, on logged events.

python -m benchmarks.neighbours --artifacts artifacts --events events.jsonl.gz --core 5
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.results import add_option, store
from indexer.data.histories import EventLog, core, read_event_log
from tests.neighbour_counts import Uncapped
from tracker.artifact.artifact import Artifact
from tracker.events.kinds import Kinds
from tracker.items.counts import apply_item_events
from tracker.items.states import ItemStates
from tracker.items.view import ItemView
from tracker.recommend.recommender import Recommender
from tracker.users.rows import UserRows

CHUNK = 10_000
NOT_AFTER = 4e9


def item_events_of(artifact: Artifact, log: EventLog) -> np.ndarray:
    """Apply a log to users and return what they tell items."""
    recommender = Recommender(artifact, ItemView(artifact.vectors))
    users = UserRows(artifact.manifest.interest)
    users.grow(max(1, len(log.user_ids)))
    told = []
    for start in range(0, len(log), CHUNK):
        events = np.arange(start, min(start + CHUNK, len(log)))
        batch = log.batch.take(events)
        batch.slots[:], batch.offsets[:] = log.users[events], events
        told.append(recommender.update(users, batch).item_events)
    return np.concatenate(told)


def main() -> None:
    """Read, count both ways, and print a line for each length of list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", required=True, help="where the items' vectors are")
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--core", type=int, default=1)
    add_option(parser)
    given = parser.parse_args()
    artifact = Artifact.load(Path(given.artifacts), device="cpu")
    interest = artifact.manifest.interest
    kinds = Kinds.default(interest.rating_min, interest.rating_max)
    log = core(read_event_log([given.events], kinds, NOT_AFTER), given.core)
    item_events = item_events_of(artifact, log)
    items = np.unique(item_events["item"])
    states = ItemStates(len(items))
    apply_item_events(states, np.searchsorted(items, item_events["item"]), item_events)
    counted = Uncapped().add(item_events)
    slots = {item: slot for slot, item in enumerate(items.tolist())}
    found = []
    for k in (20, 64):
        overlap = counted.overlap(states, slots, k)
        strength = counted.strength_kept(states, slots, k)
        found.append({"strongest": k, "overlap": overlap, "strength": strength})
        print(f"top {k}: overlap {overlap:.4f}, strength {strength:.4f}")
    store(given.result, {"events": len(log), "items": len(items), "lists": found})


if __name__ == "__main__":
    main()
