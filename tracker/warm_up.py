"""Compile every kernel of the worker before it joins the group, on states that are thrown away."""

import logging
import time
from dataclasses import replace

import numpy as np

from tracker.context import COLUMNS
from tracker.event_batch import EventBatch, EventReader
from tracker.events import Event, encode_event
from tracker.evidence import EVIDENCE, Priors
from tracker.item_events import decode_block, encode_block
from tracker.item_side import ItemRows
from tracker.kinds import Kinds
from tracker.label_rule import LabelRule
from tracker.models import Models
from tracker.network import CUT, Network, Weights
from tracker.online import OnlineRanker
from tracker.prediction import HeadWeights, Prediction, PredictionInfo
from tracker.ranker import Blend
from tracker.recommender import Recommender
from tracker.request_batch import RequestBatch
from tracker.serving import Serving
from tracker.user_rows import UserRows

log = logging.getLogger(__name__)

EVENTS = 80


def warm_up(serving: Serving, kinds: Kinds, k: int) -> None:
    """Run what a chunk needs once: events, seen sets, lists, rows as bytes, item states.

    Native code is compiled when it is first called, which takes half a minute; later starts find
    it in the cache. A worker in the group that stood still for so long would be thrown out.

    Args:
        serving: the artifact in use; its item view stays as it is.
        kinds: weights of kinds.
        k: items in a list.
    """
    begun = time.monotonic()
    log.info("compiling kernels, or reading them from the cache: the first time takes a minute")
    rows = UserRows(serving.config)
    rows.grow(4)
    batch = _events(serving, kinds)
    applied = serving.recommender.update(rows, batch)
    slots, now = np.array([0, 1, -1], np.int64), np.full(3, float(batch.times[-1]))
    asked = RequestBatch(rows, slots, now, np.zeros(3, np.uint32))
    found = serving.recommender.recommend(asked, k)
    # A later artifact may bring a ranker, or bring none: neither may be compiled in the group.
    for ranker in (Blend(), _blank_network()):
        other = Recommender(serving.artifact, serving.view, serving.recommender.options, ranker)
        other.recommend(asked, k)
    likely = replace(serving.artifact, models=Models(prediction=_blank_prediction()))
    Recommender(likely, serving.view).probabilities(asked, np.zeros((3, 1), np.int64))
    OnlineRanker(_blank_network()).learn(np.zeros((2, len(COLUMNS)), np.float32), 0)
    serving.encoder.encode(
        found,
        serving.version,
        ["a", "b", "c"],
        ["a", "b", "c"],
        now.tolist(),
        [None] * 3,
        [0.0] * 3,
    )
    kept = dict(rows.dump(["a", "b"], slots[:2]))
    rows.clear(slots[:2])
    rows.load(["a", "b"], slots[:2], lambda keys: [kept.get(key) for key in keys])

    items = ItemRows()
    items.grow(4)
    if len(applied.item_events):
        item_events = decode_block(encode_block(applied.item_events))
        _, places = np.unique(item_events["item"], return_inverse=True)
        items.grow(int(places.max()) + 1)
        items.apply(places.astype(np.int64), item_events)
        packed = items.states.pack(np.unique(places).astype(np.int64))
        items.states.unpack(np.arange(len(packed)), packed)
        type(serving.view)(serving.artifact.vectors).update(packed, np.unique(item_events["item"]))
    seconds = time.monotonic() - begun
    log.info("kernels are ready after %.1f s", seconds)


def _blank_network() -> Network:
    """Return a network that reads every column and scores all alike."""
    shapes = {
        "first": (len(COLUMNS), 1), "first_bias": (1,), "second": (1, 1), "second_bias": (1,),
        "last": (1,), "skip": (len(COLUMNS),), "cut": (CUT,),
    }  # fmt: skip
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return Network(COLUMNS, Weights(**zeros))


def _blank_prediction() -> Prediction:
    """Return a head that reads all there is and says a half of everything."""
    count = len(EVIDENCE)
    info = PredictionInfo(
        list(EVIDENCE), 1, LabelRule(), 0.5, Priors(0.0, 0.5, 0.5, 0.5, 1.0, 1.0), (1.0, 0.0), 0
    )
    shapes = {
        "linear": (count,), "bias": (1,), "first": (count, 1), "first_bias": (1,), "last": (1,),
        "lowest": (count,), "highest": (count,),
    }  # fmt: skip
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return Prediction(info, HeadWeights(**zeros))


def _events(serving: Serving, kinds: Kinds) -> EventBatch:
    """Events of two users: more than a ring holds, a dislike, a repeated one and retractions."""
    ids = serving.artifact.vectors.ids
    kind = max(kinds.table, key=lambda name: kinds.table[name].weight, default="view")
    bad = min(kinds.table, key=lambda name: kinds.table[name].weight, default="view")
    events = []
    for number in range(EVENTS):
        user = "ab"[number % 2]
        item = ids[number % len(ids)] if ids else "x"
        events.append(Event(user, item, kind, float(number), "home", None, f"e{number}"))
    events += [
        Event("a", "unknown", kind, 90.0),
        Event("a", ids[0] if ids else "x", bad, 91.0),
        Event("a", None, None, 92.0, retracts=f"e{EVENTS - 2}"),
        Event("a", None, None, 92.0, retracts="e0"),
        Event("b", None, None, 92.0, retracts="not yet"),
        Event("b", ids[0] if ids else "x", kind, 93.0, event_id="not yet"),
    ]
    values = [encode_event(event) for event in events]
    reader = EventReader(kinds)
    batch, _ = reader.read("", 0, values, range(len(values)), [100_000] * len(values))
    batch.slots[:] = ["ab".index(user) for user in batch.users]
    return batch
