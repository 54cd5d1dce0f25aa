"""One user at one moment in several scenes: what the lists have in common, and where they part.

    python -m benchmarks.scene_change --items items.jsonl.gz --events events.jsonl.gz \
        --out artifacts --user 1111

The events are replayed through the recommender that serves; then the user's list is asked for in
each of the user's own most frequent scenes, in a scene never seen, and without one.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.results import add_option, store
from indexer.data.catalog import read_items
from indexer.data.histories import read_event_log
from indexer.replay.replay import Replay
from tracker.artifact.artifact import Artifact
from tracker.events.kinds import Kinds
from tracker.events.wire import scene_code
from tracker.recommend.options import RecommendOptions

UNSEEN = "a scene never seen"


def main() -> None:
    """Print a list a scene, as a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=Path, action="append", required=True)
    parser.add_argument("--items", type=Path, action="append", default=[], help="for their titles")
    parser.add_argument("--out", required=True, help="where versions live")
    parser.add_argument("--artifact", help="by default the one LATEST names")
    parser.add_argument("--user", required=True)
    parser.add_argument("--scenes", type=int, default=2, help="of the user's own")
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--repeats", action="store_true", help="items chosen before may come again")
    add_option(parser)
    given = parser.parse_args()
    titles = {}
    if given.items:
        titles = {
            item.item_id: item.title or item.item_id for item in read_items(given.items).items
        }
    artifact = Artifact.load(given.out, given.artifact, "cpu")
    scale = artifact.manifest.interest
    kinds = msgspec.structs.replace(
        Kinds.default(), rating_min=scale.rating_min, rating_max=scale.rating_max
    )
    log = read_event_log(given.events, kinds, time.time())
    options = RecommendOptions(seen="keep" if given.repeats else "demote")
    replay = Replay(artifact, log, options)
    replay.advance(len(log))
    user = log.user_ids.index(given.user)
    own = Counter(
        log.scene_names[code]
        for code in log.batch.scenes[log.users == user].tolist()
        if code in log.scene_names
    )
    scenes = [None, *(name for name, _ in own.most_common(given.scenes)), UNSEEN]
    codes = np.array([scene_code(name) for name in scenes], np.uint32)
    asked = replay.asked_of(np.full(len(scenes), user), float(log.batch.times[-1]), codes)
    made = replay.recommender.recommend(asked, given.k)
    names = [
        "no scene" if name is None else f"{name} ({own[name]} events)" if own[name] else name
        for name in scenes
    ]
    print("| | " + " | ".join(names) + " |")
    print("| --- |" + " --- |" * len(names))
    rows = [
        [
            titles.get(artifact.vectors.ids[row], artifact.vectors.ids[row]) if row >= 0 else ""
            for row in made.rows[:, place]
        ]
        for place in range(given.k)
    ]
    for place, cells in enumerate(rows, 1):
        print(f"| {place} | " + " | ".join(cells) + " |")
    store(given.result, {"scenes": names, "items": rows})


if __name__ == "__main__":
    main()
