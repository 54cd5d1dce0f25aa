"""Compilation of every kernel that an artifact needs, on states that are thrown away."""

import logging
import time

import numpy as np

from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventBatch, EventReader
from tracker.events.item_events import ITEM_EVENT, decode_block, encode_block
from tracker.events.kinds import Kinds
from tracker.events.wire import Event, encode_event
from tracker.items.rows import ItemRows
from tracker.items.search_memory import SearchMemory
from tracker.recommend.learner import Learner
from tracker.scoring.context import COLUMNS
from tracker.scoring.online_ranker import OnlineRanker
from tracker.stream.key_check import RULES, partitions_of_all
from tracker.stream.live_quality import LastLists
from tracker.stream.serving import Serving
from tracker.users.rows import RequestBatch, UserRows

log = logging.getLogger(__name__)

EVENTS = 80
"""Number of events: more than the ring of a user holds."""


def warm_up(serving: Serving, kinds: Kinds, k: int, lists_first: bool = False) -> None:
    """Call everything that a chunk needs once: events, carry-over, lists, learning, joins, items.

    Native code is compiled at its first call, which takes half a minute; later starts load it from
    the cache. A group member that stalls for so long is removed from the group. Which kernels are
    needed depends on the trained models, so each artifact is warmed up before it is used.

    Args:
        serving: an artifact with its recommender; its item view is not changed.
        kinds: weights of kinds.
        k: items in a list.
        lists_first: take the parts in another order, as a process does that compiles beside one
            that begins with the events.
    """
    started_at = time.monotonic()
    parts = _Parts(serving, kinds, k)
    order = [parts.events, parts.rows, parts.items, parts.lists]
    if lists_first:
        order.reverse()
    for part in order:
        part()
    log.info("kernels ready after %.1f s", time.monotonic() - started_at)


class _Parts:
    """The parts of a warm-up. They share rows of users, and can be called in any order."""

    def __init__(self, serving: Serving, kinds: Kinds, k: int) -> None:
        self._serving = serving
        self._kinds = kinds
        self._k = k
        self._users = UserRows(serving.config)
        self._users.grow(4)
        self._users.clear(np.arange(3))
        self._batch = _events(serving, kinds)
        self._item_events = np.zeros(2, ITEM_EVENT)
        self._item_events["item"] = [1, 2]
        self._item_events["weight"] = self._item_events["sign"] = 1

    def events(self) -> None:
        """Apply events to users, and carry the states of an older encoder over."""
        recommender, users, batch = self._serving.recommender, self._users, self._batch
        applied = recommender.update(users, batch)
        self._item_events = applied.item_events
        users.states.head["basis"] = 0
        users.states.head["encoder"] = 0
        recommender.carry_over(users.states, np.array([0, 1, -1], np.int64))

    def lists(self) -> None:
        """Make lists of two users and of one without a state, judge them, and learn."""
        serving, users = self._serving, self._users
        slots = np.array([0, 1, -1], np.int64)
        now = np.full(3, float(self._batch.times[-1]))
        learner = Learner(self._kinds)
        learner.follow(serving.artifact.models)
        requests = RequestBatch(users, slots, now, np.zeros(3, np.uint32))
        memory = SearchMemory()  # these users may have no interest that is searched for
        memory.keep(*memory.find(np.zeros((1, serving.artifact.index.dim), np.float32), 1))
        recommended = serving.recommender.recommend(requests, self._k, learner.served)
        lists = LastLists()
        lists.keep(users.states, np.arange(3), recommended, serving.sequence)
        outcomes = np.zeros(len(self._batch), np.uint8)
        lists.judge(users.states, self._batch, outcomes, serving.sequence)
        ranker = learner.served.ranker
        if isinstance(ranker, OnlineRanker):
            ranker.learn(np.zeros((2, len(COLUMNS)), np.float32), 0)
        serving.encoder.encode(
            recommended,
            serving.version,
            ["a", "b", "c"],
            ["a", "b", "c"],
            now.tolist(),
            [None] * 3,
            [0.0] * 3,
            [0] * 3,
        )

    def rows(self) -> None:
        """Store rows of users, read them again, and join them."""
        users, slots = self._users, np.arange(2)
        stored = dict(users.dump(["a", "b"], slots))
        users.clear(slots)
        users.load(["a", "b"], slots, lambda keys: [stored.get(key) for key in keys])
        first = self._batch.take(np.zeros(1, np.int64))
        self._serving.recommender.join(users, 0, 1, first)

    def items(self) -> None:
        """Apply item events to items, and read the rows of those."""
        scales = self._serving.artifact.manifest.item_counts
        items = ItemRows(scales)
        items.grow(4)
        if len(self._item_events):
            item_events = decode_block(encode_block(self._item_events, 2))
            _, places = np.unique(item_events["item"], return_inverse=True)
            items.grow(int(places.max()) + 1)
            items.apply(places.astype(np.int64), item_events)
            packed = items.states.pack(np.unique(places).astype(np.int64))
            items.states.unpack(np.arange(len(packed)), packed)
            view = type(self._serving.view)(self._serving.artifact.vectors, scales)
            view.update(packed, np.unique(item_events["item"]))
        partitions_of_all([b"a"], RULES["murmur2"], 2)


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
    arrivals = Arrivals.of_file(len(values), 100.0)
    batch, _ = reader.read("", 0, values, range(len(values)), arrivals)
    batch.slots[:] = ["ab".index(user) for user in batch.users]
    return batch
