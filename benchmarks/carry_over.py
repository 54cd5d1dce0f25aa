"""What a user's state is worth that was carried over to a new artifact from its ring.

Two versions are needed, both trained without the targets, the later with another encoder or basis:

    indexer train --items ITEMS --events EVENTS --protocol gts --out ROOT
    indexer train --items ITEMS --events EVENTS --protocol gts --out ROOT --refit --seed 1
    python -m benchmarks.carry_over --events EVENTS --out ROOT

States are built with the first up to the 90 % cut; then the artifact is swapped, every user's row
is rebuilt from its ring, and the targets after the cut are asked while events go on. Beside it the
same targets after a replay with the second from the first event on. Last, a swap to the same
version, read anew, and how many lists it changes: hardly any, as an item that others have crowded
out of a list of neighbours may be in that of a view that was just filled.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.results import add_option, store
from indexer.data.histories import EventLog, core, read_event_log, split
from indexer.data.holdout import check_unseen
from indexer.evaluate.intervals import paired_interval
from indexer.evaluate.metrics import gains_at_k, hits_at_k, rank_and_list
from indexer.evaluate.targets import Targets, target_batches, targets_of
from indexer.replay.replay import Replay
from tracker.artifact.artifact import Artifact
from tracker.artifact.versions import list_versions
from tracker.events.kinds import Kinds
from tracker.recommend.options import RecommendOptions

FIRST = 1000
"""Targets that count as right after the swap."""

K = 10
"""Length of the lists that are compared."""

AT_ONCE = 1024
"""Users whose rows are rebuilt at a time."""


def ranks_of(replay: Replay, targets: Targets) -> NDArray[np.float64]:
    """Return the rank of each target among all items, from the state before it."""
    ranks = np.full(len(targets.events), np.inf)
    lists = np.empty((len(targets.events), K), np.int64)
    ranked = np.flatnonzero(targets.ranked)
    everyone = np.array([len(ranked)])
    done = 0
    for asked in target_batches(replay.log, replay.rows, targets, 4 * len(targets.ranked)):
        scores = np.full((len(asked), len(targets.ranked)), -np.inf, np.float32)
        for b, event in enumerate(asked.events.tolist()):
            replay.advance(event)
            columns = replay.columns(np.array([event]), ranked[None, :])
            scores[b, ranked] = replay.recommender.ranker.score(columns, everyone)[0]
        part = slice(done, done + len(asked))
        starts = np.zeros_like(asked.starts) if targets.repeats else asked.starts
        rank_and_list(
            scores, asked.rows, targets.ranked, asked.past, starts, ranks[part], lists[part]
        )
        done += len(asked)
    return ranks


def rebuild(replay: Replay) -> dict[str, float]:
    """Rebuild the rows of all users met, in batches; say how many there were, and how long."""
    met = np.unique(replay.log.users[: replay.position])
    started = time.perf_counter()
    parts = (met[start : start + AT_ONCE] for start in range(0, len(met), AT_ONCE))
    rebuilt = sum(replay.recommender.carry_over(replay.users.states, part) for part in parts)
    taken = time.perf_counter() - started
    return {"users": len(met), "rebuilt": rebuilt, "seconds": round(taken, 3)}


def lists_of(replay: Replay) -> list[NDArray[Any]]:
    """Return the lists of all users met, as arrays that must be equal for equal lists."""
    met = np.unique(replay.log.users[: replay.position])
    now = float(replay.log.batch.times[replay.position])
    found = replay.recommender.recommend(replay.asked_of(met, now), K)
    return [found.rows, found.scores, found.because, found.strengths]


def compare(
    log: EventLog,
    first: Artifact,
    second: Artifact,
    again: Artifact,
    repeats: bool,
    met_only: bool,
) -> dict[str, Any]:
    """Return what a swap from the first to the second costs, and to the same costs nothing.

    Args:
        log: the events.
        first: with which states are built up to the cut.
        second: to which they are carried over.
        again: the first once more, read anew.
        repeats: items seen before are ranked.
        met_only: only items of the log are ranked.
    """
    parted = split(log, "gts")
    serving = RecommendOptions(seen="keep" if repeats else "exclude")
    cut = int(parted.test[0])
    swapped = Replay(first, log, serving)
    swapped.advance(cut)
    before = lists_of(swapped)
    swapped.swap(again, serving)
    nothing = rebuild(swapped)
    changed = np.zeros(len(before[0]), np.bool_)
    for old, new in zip(before, lists_of(swapped), strict=True):
        changed |= (old != new).reshape(len(old), -1).any(axis=1)
    swapped.swap(second, serving)
    carried = rebuild(swapped)
    whole = Replay(second, log, serving)
    vectors = second.vectors
    targets = targets_of(log, parted, whole.rows, vectors.live, len(vectors), repeats, met_only)
    ours, theirs = ranks_of(swapped, targets), ranks_of(whole, targets)
    users = log.users[targets.events]
    report: dict[str, Any] = {
        "first": first.manifest.version,
        "second": second.manifest.version,
        "without_a_refit": {**nothing, "lists_changed": int(changed.sum())},
        "with_a_refit": carried,
    }
    for name, some in (("right_after", slice(0, FIRST)), ("all", slice(None))):
        report[name] = {"targets": len(ours[some])}
        for metric, value in (("hit_rate_at_10", hits_at_k), ("ndcg_at_10", gains_at_k)):
            swap, replay = value(ours[some], 10), value(theirs[some], 10)
            low, high = paired_interval(swap, replay, users[some], 0)
            report[name][metric] = {
                "after_swap": swap.mean(),
                "after_replay": replay.mean(),
                "difference": [(swap - replay).mean(), low, high],
            }
    return report


def main() -> None:
    """Compare two versions as told by the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=Path, action="append", required=True)
    parser.add_argument("--out", required=True, help="where the versions are")
    parser.add_argument("--first", help="version; by default the one before the last")
    parser.add_argument("--second", help="version; by default the last")
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--repeats", action="store_true")
    add_option(parser)
    told = parser.parse_args()
    versions = list_versions(told.out)
    names = told.first or versions[-2], told.second or versions[-1]
    first, second = (Artifact.load(told.out, name, "cpu") for name in names)
    scale = second.manifest.interest
    kinds = msgspec.structs.replace(
        Kinds.default(), rating_min=scale.rating_min, rating_max=scale.rating_max
    )
    log = core(read_event_log(told.events, kinds, time.time()), told.core)
    for artifact in (first, second):
        check_unseen(artifact.manifest, log, split(log, "gts"), told.core)
    again = Artifact.load(told.out, names[0], "cpu")
    report = compare(log, first, second, again, told.repeats, told.core > 1)
    print(json.dumps(report, indent=2))
    store(told.result, report)


if __name__ == "__main__":
    main()
