"""Time of a recommendation by stage, on one thread (its processor time, not waiting).

A made-up catalogue of 100,000 items in 500 groups (384 wide, 64 in the index), 20,000 users with 30
events each, sent through the code that serves: states, item states, neighbours and trend are real.
The indexes are those of `indexer build`; weights of ranker and user encoder are drawn at random.

    python -m benchmarks.recommend --items 100000 --users 20000 --batch 500
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

import tracker.recommend.interest_search as searching
import tracker.recommend.reader as reading
import tracker.recommend.recommender as recommending
import tracker.recommend.shortlist as shortlisting
from benchmarks.results import add_option, store
from indexer.items.index import build_index
from indexer.items.tower_items import FittedTower, make_tower
from indexer.train.ranker import RankerOptions
from tracker.artifact.artifact import Artifact
from tracker.artifact.models import Models
from tracker.encoder.interests import interest_names
from tracker.encoder.online_attention import OnlineAttention
from tracker.encoder.scene_attention import SceneAttention, SceneAttentionConfig
from tracker.encoder.tower_info import UserAttributes
from tracker.encoder.user_encoder import EncoderConfig, UserEncoder
from tracker.events.batch import EventBatch
from tracker.items.counts import apply_item_events
from tracker.items.states import ItemStates
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemView
from tracker.recommend import columns
from tracker.recommend.list_json import ListEncoder
from tracker.recommend.options import LearnedModels, RecommendOptions, trained_with
from tracker.recommend.recommender import Recommender
from tracker.scoring.blend import CUT
from tracker.scoring.context import COLUMNS
from tracker.scoring.features import OPTIONAL
from tracker.scoring.network import Network, Weights
from tracker.users.config import InterestConfig
from tracker.users.rows import RequestBatch, UserRows

STAGES = {
    "read_histories": reading, "interest_queries": searching,
    "find_candidates": shortlisting,
    "cut_candidates": shortlisting, "fill_features": columns, "select": recommending,
    "describe": recommending,
}  # fmt: skip
"""Functions that are timed, and the module that calls each."""

GROUPS = 500
START = 1_700_000_000.0
DAY = 86400.0


def make_items(count: int, random: np.random.Generator) -> ItemVectors:
    """Return items in groups of a few hundred, whitened text vectors in kind."""
    centres = random.normal(size=(GROUPS, 384)).astype(np.float32)
    groups = np.arange(count) % GROUPS
    full = centres[groups] + random.normal(size=(count, 384)).astype(np.float32)
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    step = GROUPS * random.integers(1, max(count // GROUPS, 2), size=(count, 16))
    similar = ((np.arange(count)[:, None] + step) % count).astype(np.int32)
    return ItemVectors.make(
        [f"item-{row:07d}" for row in range(count)],
        full,
        64,
        similar=similar,
        labels=[f"group {group}" for group in groups],
    )


class Job:
    """The catalogue, users and their events, run through update and the item side."""

    def __init__(self, count: int, users: int, events: int) -> None:
        random = np.random.default_rng(7)
        self.items = make_items(count, random)
        config = InterestConfig()
        index, self.index_info = build_index(np.asarray(self.items.vectors), 0.95)
        self.artifact = Artifact.in_memory(self.items, interest=config, index=index)
        self.view = ItemView(self.items)
        self.users = UserRows(config)
        self.users.grow(users)
        self.recommender = Recommender(self.artifact, self.view)
        item_states = ItemStates(count)
        item_states.clear(np.arange(count))
        self.tastes = random.integers(0, GROUPS, size=(users, 3))
        update_seconds = 0.0
        for turn in range(events):
            group = self.tastes[np.arange(users), random.integers(0, 3, size=users)]
            # Few items of a group are chosen often: a Zipf-like rank.
            rank = (random.random(users) ** 3 * (count // GROUPS)).astype(np.int64)
            rows = np.minimum(rank * GROUPS + group, count - 1)
            batch = self.events_at(
                rows, START + turn * DAY / 2 + random.random(users) * DAY / 2, turn
            )
            start = time.thread_time()
            applied = self.recommender.update(self.users, batch)
            update_seconds += time.thread_time() - start
            found = self.items.row_of(applied.item_events["item"].copy())
            apply_item_events(item_states, found, applied.item_events)
        self.update_microseconds = 1e6 * update_seconds / users / events
        rows = np.flatnonzero(item_states.head["positives"] > 0)
        for part in np.array_split(rows, max(1, len(rows) // 2000)):
            self.view.update(item_states.pack(part), self.items.hashes[part])
        self.now = START + events * DAY / 2

    def events_at(
        self, rows: NDArray[np.int64], times: NDArray[np.float64], turn: int
    ) -> EventBatch:
        """Return an event of each user: of these items, at these times."""
        users = len(rows)
        return EventBatch(
            topic="events",
            partition=0,
            users=[""] * users,
            slots=np.arange(users),
            items=self.items.hashes[rows],
            rows=np.full(users, -1, np.int64),
            times=times,
            appended=times,
            weights=np.random.default_rng(turn).choice(
                np.array([0.5, 2.0, -0.5], np.float32), size=users, p=[0.6, 0.35, 0.05]
            ),
            values=np.full(users, np.nan, np.float32),
            kinds=np.ones(users, np.uint16),
            scenes=np.full(users, 1 + turn % 3, np.uint32),
            event_ids=np.zeros(users, np.uint64),
            retracts=np.zeros(users, np.uint64),
            offsets=np.arange(users, dtype=np.int64) + turn * users,
        )


def timed(name: str, spent: dict[str, float], call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call`, its time added to `spent[name]`."""

    def run(*arguments: Any, **named: Any) -> Any:
        start = time.thread_time()
        result = call(*arguments, **named)
        spent[name] = spent.get(name, 0.0) + time.thread_time() - start
        return result

    return run


class _Timed:
    """Stands for an object, one method of which is timed."""

    def __init__(self, inner: Any, method: str, name: str, spent: dict[str, float]) -> None:
        self._inner = inner
        setattr(self, method, timed(name, spent, getattr(inner, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _search_anew(index: Any, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return rows of queries as if none had been searched for before; users come again here."""
    rows: NDArray[np.int64] = index.search(queries, k)[0]
    return rows


def make_network() -> Network:
    """Return networks merged into one over all columns but optional ones, with random weights."""
    random = np.random.default_rng(1)
    columns = [name for name in COLUMNS if name not in OPTIONAL]
    options = RankerOptions()
    hidden = options.members * options.hidden[0], options.members * options.hidden[1]
    shapes = {
        "first": (len(columns), hidden[0]), "first_bias": (hidden[0],), "second": hidden,
        "second_bias": (hidden[1],), "last": (hidden[1],), "skip": (len(columns),),
        "cut": (len(CUT),),
    }  # fmt: skip
    weights = {
        name: random.normal(0.0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()
    }
    inputs, units = (np.arange(width) * options.members // width for width in hidden)
    weights["second"][inputs[:, None] != units] = 0.0
    return Network(columns, Weights(**weights))


def with_tower(artifact: Artifact, attends: bool = False) -> Artifact:
    """Return the artifact with a user encoder of the default size, its weights drawn at random.

    With `attends` there is scene attention on top of it, of the scenes that occur.
    """
    torch.manual_seed(1)
    model = UserEncoder(EncoderConfig(text_dim=artifact.vectors.full_dim)).eval()
    attention = None
    if attends:
        names = interest_names(artifact.manifest.interest)
        attention = SceneAttention(SceneAttentionConfig(interests=names, scenes=(1, 2, 3)))
        torch.nn.init.normal_(attention.out.weight, std=0.1)
    fitted = FittedTower(model, np.zeros(0, np.uint64), attention, UserAttributes.none(), {})
    tower = make_tower(fitted, artifact.vectors)
    return replace(artifact, models=Models(tower=tower))


def learned_attention(artifact: Artifact) -> LearnedModels:
    """Return corrections of the artifact's scene attention, drawn at random."""
    tower = artifact.models.tower
    assert tower is not None
    assert tower.attention is not None
    dim, types = tower.model.dim, len(tower.attention.type_weight)
    online = OnlineAttention(tower.attention.config.scenes, types, tower.vectors, dim)
    values = np.random.default_rng(4).normal(0.0, 0.01, (4, types + dim)).astype("<f4")
    online.set_bytes(values.tobytes() + np.array([1, 2, 3], "<u4").tobytes())
    return LearnedModels(attention=online)


def network_microseconds(batch: int, candidates: int, repeats: int) -> float:
    """Return the median time of the network for a user, alone."""
    network = make_network()
    drawn = np.random.default_rng(2).normal(size=(batch, candidates, len(COLUMNS)))
    columns = drawn.astype(np.float32)
    n_rows = np.full(batch, candidates)
    network.score(columns, n_rows)
    taken = []
    for _ in range(repeats):
        start = time.thread_time()
        network.score(columns, n_rows)
        taken.append(time.thread_time() - start)
    return 1e6 * float(np.median(taken)) / batch


def measure(
    job: Job, batch: int, k: int, repeats: int, learned: LearnedModels | None = None
) -> dict[str, float]:
    """Return microseconds a recommendation by stage, the median of `repeats` batches."""
    random = np.random.default_rng(3)
    rows: list[dict[str, float]] = []
    encoder = ListEncoder(job.items)
    kept = {name: getattr(module, name) for name, module in STAGES.items()}
    recommender: Any = job.recommender
    users = [f"user-{user}" for user in range(batch)]
    for turn in range(repeats + 2):
        spent: dict[str, float] = {}
        for name, module in STAGES.items():
            setattr(module, name, timed(name, spent, kept[name]))
        index: Any = _Timed(job.artifact.index, "search", "search", spent)
        index.remembered_rows = partial(_search_anew, index)
        reader: Any = recommender.reader
        reader.artifact = replace(job.artifact, index=index)
        tower: Any = reader.tower
        if tower is not None:
            reader.tower = _Timed(tower, "queries", "encoder's queries", spent)
            reader.tower = _Timed(reader.tower, "scene_queries", "encoder's queries", spent)
            reader.tower.index = _Timed(tower.index, "search", "search by encoder", spent)
        ranker: Any = recommender.ranker
        recommender.ranker = _Timed(ranker, "score", "score", spent)
        slots = random.choice(job.users.states.capacity, size=batch, replace=False)
        now = np.full(batch, job.now + turn)
        asked = RequestBatch(job.users, slots, now, np.ones(batch, np.uint32))
        start = time.thread_time()
        made = recommender.recommend(asked, k, learned)
        spent["recommend"] = time.thread_time() - start
        recommender.ranker, reader.tower = ranker, tower
        start = time.thread_time()
        encoder.encode(
            made, "000001", users, users, now.tolist(), ["home"] * batch, [1.5] * batch, [1] * batch
        )
        spent["encode"] = time.thread_time() - start
        if turn >= 2:  # the first are for warming up
            rows.append(spent)
    for name, module in STAGES.items():
        setattr(module, name, kept[name])
    recommender.reader.artifact = job.artifact
    result = {name: 1e6 / batch * float(np.median([row[name] for row in rows])) for name in rows[0]}
    result["recommend without search"] = (
        1e6 / batch * float(np.median([row["recommend"] - row["search"] for row in rows]))
    )
    return result


def main() -> None:
    """Print the times, and the update's beside them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=30, help="a user")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    job = Job(arguments.items, arguments.users, arguments.events)
    results = {"blend": measure(job, arguments.batch, arguments.k, arguments.repeats)}
    network = make_network()
    options = trained_with(network.info, RecommendOptions())
    job.recommender = Recommender(job.artifact, job.view, options, network)
    results["network"] = measure(job, arguments.batch, arguments.k, arguments.repeats)
    job.artifact = with_tower(job.artifact)
    job.recommender = Recommender(job.artifact, job.view, options, network)
    # States come with the first event after a new encoder; here they are there already.
    job.recommender.carry_over(job.users.states, np.arange(arguments.users))
    results["network and encoder"] = measure(job, arguments.batch, arguments.k, arguments.repeats)
    job.artifact = with_tower(job.artifact, attends=True)
    job.recommender = Recommender(job.artifact, job.view, options, network)
    job.recommender.carry_over(job.users.states, np.arange(arguments.users))
    for name, learned in (("", None), (", learned", learned_attention(job.artifact))):
        results[f"network, encoder and attention{name}"] = measure(
            job, arguments.batch, arguments.k, arguments.repeats, learned
        )
    alone = network_microseconds(256, 200, arguments.repeats)
    found = {"update": job.update_microseconds, "network alone": alone, **results}
    store(arguments.result, {"items": arguments.items, "microseconds": found})
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"index {job.index_info}")
    tower = job.artifact.models.tower
    print(f"index of the user encoder {None if tower is None else tower.info}")
    print(f"update {job.update_microseconds:.2f} us an event")
    print(f"the network alone, 200 candidates, batch 256: {alone:.1f} us a recommendation")
    for title, times in results.items():
        print(f"{title}: us a recommendation, batch {arguments.batch}, one thread")
        for name, value in times.items():
            print(f"  {name:26s}{value:8.2f}")


if __name__ == "__main__":
    main()
