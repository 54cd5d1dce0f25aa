"""Parts of what is asked that are reported on their own."""

import math
from collections.abc import Iterator

import numpy as np

from indexer.data.histories import EventLog
from indexer.evaluate.targets import Flags, Integers, Rows, Targets

HISTORY_SLICES = ((1, 3), (4, 10), (11, 30), (31, None))
"""Lengths of the history before a target, as reported."""

MAX_SCENES, MIN_SCENE_TARGETS = 20, 30
"""Scenes with a slice of their own: the most frequent, and none with fewer targets."""

TAIL_SHARE = 0.1
"""`tail_items` are targets outside this share of the items, the most popular in training."""


def slices(
    log: EventLog,
    events: Integers,
    targets: Targets,
    rows: Rows,
    scene_names: dict[int, str],
    with_attributes: Flags | None = None,
) -> Iterator[tuple[str, Flags]]:
    """Yield the name of each slice and which of some events (Q,) are in it, if any are.

    `cold_users` and `cold_items` have no event among those that baselines are fitted on;
    `tail_items` are outside the most popular tenth of the items there; `history:A-B` are targets
    with so many events of the user before. `scene:NAME` are the most frequent scenes.
    `attribute_users` are users of whom more is known than their events, and
    `attribute_users:history:1-3` their first events.

    Args:
        log: the events.
        events: targets, or other events that were asked for.
        targets: what is asked.
        rows: (E,) catalogue rows of the events.
        scene_names: by code.
        with_attributes: (U,) of which users of the log attributes are known.
    """
    yield "all", np.ones(len(events), np.bool_)
    users = np.bincount(log.users[targets.fitted], minlength=len(log.user_ids))
    counts = np.bincount(rows[targets.fitted], minlength=len(targets.ranked))
    target = rows[events]
    known = target >= 0
    of_target = np.where(known, counts[np.maximum(target, 0)], 0)
    popular = np.zeros(len(counts), np.bool_)
    ranked = np.flatnonzero(targets.ranked)
    top = ranked[np.argsort(-counts[ranked], kind="stable")]
    popular[top[: math.ceil(TAIL_SHARE * len(top))]] = True
    lengths = log.lengths()[events]
    chosen = {
        "cold_users": users[log.users[events]] == 0,
        "cold_items": of_target == 0,
        "tail_items": ~(known & popular[np.maximum(target, 0)]),
    }
    for low, high in HISTORY_SLICES:
        name = f"history:{low}+" if high is None else f"history:{low}-{high}"
        chosen[name] = (lengths >= low) & (lengths <= (high or np.inf))
    if with_attributes is not None and with_attributes.any():
        chosen["attribute_users"] = with_attributes[log.users[events]]
        low, high = HISTORY_SLICES[0]
        first = (lengths >= low) & (lengths <= (high or np.inf))
        chosen[f"attribute_users:history:{low}-{high}"] = chosen["attribute_users"] & first
    scenes, sizes = np.unique(log.batch.scenes[events], return_counts=True)
    for place in np.argsort(-sizes, kind="stable")[:MAX_SCENES].tolist():
        scene = scene_names.get(int(scenes[place]))
        if scene is not None and sizes[place] >= MIN_SCENE_TARGETS and len(scenes) > 1:
            chosen[f"scene:{scene}"] = log.batch.scenes[events] == scenes[place]
    for name, which in chosen.items():
        if which.any():
            yield name, which
