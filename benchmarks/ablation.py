"""What each part of the model is worth: the whole, and the same with one part less or another.

    python -m benchmarks.ablation --items ITEMS --events EVENTS --out FOLDER --core 5
    python -m benchmarks.ablation --items ITEMS --events EVENTS --users USERS --out FOLDER --repeats

Everything is trained by protocol gts and asked for its targets, all items ranked. The ranker's
examples are collected once; without a group of columns it is fitted anew without them. Another
encoder is trained as the first one was, and what it says is weighed beside the same network. All
are asked in one replay, so that differences are paired, target by target. Only the raw text vectors
need examples and a replay of their own; both sides of that line are without an encoder.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results import add_option, store
from indexer.data.catalog import Catalog, read_items
from indexer.data.histories import EventLog, core, split
from indexer.data.holdout import ranker_targets
from indexer.data.training_log import read_log
from indexer.data.users import read_users
from indexer.encoder.learner import EncoderOptions
from indexer.encoder.options import TooFewError, TowerOptions
from indexer.encoder.tower import fit_tower, refit_tower, vectors_at
from indexer.encoder.tower_data import TowerData, make_tower_data
from indexer.evaluate.intervals import mean_interval, paired_interval
from indexer.evaluate.metrics import gains_at_k, hits_at_k, rank_and_list
from indexer.evaluate.targets import TargetBatch, Targets, target_batches, targets_of
from indexer.items.assemble import Assembled, assemble, in_memory
from indexer.items.index import build_index
from indexer.items.item_encoder import ItemEncoder
from indexer.items.options import BuildOptions
from indexer.replay.ranker_examples import Examples, collect_examples
from indexer.replay.replay import Replay
from indexer.train.inputs import MAX_EXAMPLES
from indexer.train.item_weights import fit_item_weights, refit_item_weights, weights_data
from indexer.train.ranker import LATE_EXAMPLES, RankerOptions, fit_ranker
from tracker.artifact.models import Models
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id
from tracker.items.vectors import ItemVectors, unit
from tracker.recommend.learner import Learner
from tracker.recommend.options import RecommendOptions, trained_with
from tracker.scoring.blend import Blend, Ranker
from tracker.scoring.context import COLUMNS, CONTEXT
from tracker.scoring.item_weights import ItemWeights
from tracker.scoring.network import Network, RankerInfo

FULL, NO_ENCODER, RAW = "full model", "no encoder", "no encoder, text vectors not whitened"

GROUPS: Mapping[str, tuple[str, ...]] = {
    "no trend": tuple(name for name in COLUMNS if name.startswith(("trend_", "scene_"))),
    "no live neighbours": tuple(n for n in COLUMNS if n.startswith(("neighbours_", "next"))),
    "no content and interests": tuple(
        name for name in COLUMNS if name.startswith(("content_", "interest_", "slot", "negative"))
    ),
    "no context of the user": CONTEXT,
    "no repeats": ("repeats", "repeat_recency"),
    "no scene columns": ("scene_short", "scene_long"),
    "no item weights": ("item_weights",),
    NO_ENCODER: ("encoder",),
}
"""Groups of columns that a ranker is fitted without."""


@dataclass(frozen=True, slots=True)
class Said:
    """An encoder beside the network of a ranker that has none: scale * network + weight * encoder.

    `vectors` (Q, D + 1) are users' at the targets, `table` (N, D + 1) the items'.
    """

    vectors: NDArray[np.float32]
    table: NDArray[np.float32]
    scale: float
    weight: float


@dataclass(frozen=True, slots=True)
class World:
    """What everything is trained on."""

    log: EventLog
    parts: Assembled
    attributes: dict[str, Any]
    repeats: bool
    seed: int
    kinds: Kinds

    def tower_data(self, **told: Any) -> TowerData:
        """Return the data of an encoder's training; without `attributes` if it is False."""
        known = self.attributes if told.pop("attributes", True) else {}
        options = TowerOptions(seed=self.seed, repeats=self.repeats, tries=1, **told)
        return make_tower_data(self.parts, self.log, known, "gts", options)

    def item_weights(self) -> tuple[ItemWeights | None, ItemWeights | None]:
        """Return item weights of the events before the ranker's targets, and of all; or None."""
        ring = self.parts.interest.ring
        data = weights_data(self.parts.items, self.log, "gts", ring, self.repeats)
        early, _ = fit_item_weights(data)
        return early, None if early is None else refit_item_weights(data, early)

    def examples(self, parts: Assembled, models: Models) -> Examples:
        """Replay the log and write down what a ranker learns from."""
        rows = parts.items.row_of(self.log.batch.items)
        usable = (rows >= 0) & (rows < parts.items.live)
        lessons = ranker_targets(self.log, "gts", usable, MAX_EXAMPLES)
        serving = trained_with(RankerInfo([], (32, 32)), self.serving(0.0))
        replay = Replay(in_memory(parts, models), self.log, serving, Blend(), lessons.skip)
        return collect_examples(replay, lessons.events, self.repeats, self.seed, lessons.fresh)

    def ranker(self, examples: Examples, without: tuple[str, ...] = ()) -> Network:
        """Fit a ranker, without some columns: those that never differ are left out."""
        features = examples.features
        if without:
            features = features.copy()
            features[:, :, [COLUMNS.index(name) for name in without]] = 0.0
        options = RankerOptions(seed=self.seed)
        return fit_ranker(replace(examples, features=features), options).network

    def serving(self, diversity: float = 0.25) -> RecommendOptions:
        """Return how lists are made."""
        return RecommendOptions(seen="keep" if self.repeats else "exclude", diversity=diversity)

    def targets(self, met_only: bool) -> Targets:
        """Return what is asked."""
        items = self.parts.items
        rows = items.row_of(self.log.batch.items)
        parted = split(self.log, "gts")
        return targets_of(self.log, parted, rows, items.live, len(items), self.repeats, met_only)


def read_world(told: argparse.Namespace) -> tuple[World, Catalog]:
    """Read everything, and encode the items' texts."""
    log, scale = read_log(told.events, Kinds.default(), None, time.time())
    log = core(log, told.core)
    catalog = read_items(told.items)
    if told.core > 1:
        met = set(log.item_hashes.tolist())
        kept = [item for item in catalog.items if hash_id(item.item_id) in met]
        catalog = replace(catalog, items=kept)
    kinds = msgspec.structs.replace(Kinds.default(), rating_min=scale[0], rating_max=scale[1])
    parts = assemble(
        catalog, ItemEncoder(None, "auto", 64), told.out, BuildOptions(rating_scale=scale)
    )
    known = read_users(told.users).attributes if told.users else {}
    return World(log, parts, known, told.repeats, told.seed, kinds), catalog


def not_whitened(parts: Assembled) -> Assembled:
    """Return the same items with their text vectors as encoded, but for the mean and the basis."""
    raw = unit(parts.sources.encodings.astype(np.float32))
    values, axes = np.linalg.eigh(np.cov(raw.T.astype(np.float64)))
    full = unit((raw @ axes[:, np.argsort(-values)]).astype(np.float32))
    items = parts.items
    vectors = unit(np.ascontiguousarray(full[:, : items.dim]))
    index, info = build_index(vectors[: items.live], 0.9)
    made = ItemVectors.make(items.ids, full, items.dim, vectors=vectors, live=items.live)
    return replace(parts, items=made, index=index, index_info=info, basis="raw")


Vectors = NDArray[np.float32]


def weigh(
    examples: Examples,
    network: Network,
    encoder: Callable[[NDArray[np.int64]], tuple[Vectors, Vectors]],
) -> tuple[float, float]:
    """Fit how much an encoder counts beside a network, on examples that it has not seen.

    `encoder` takes positions of events, and returns the vectors of `vectors_at`.
    """
    chosen = np.flatnonzero(examples.fresh)[-LATE_EXAMPLES:]
    vectors, table = encoder(examples.events[chosen])
    rows = np.maximum(examples.rows[chosen], 0)
    said = torch.from_numpy(np.einsum("qd,qcd->qc", vectors, table[rows]).astype(np.float64))
    features = examples.features[chosen].astype(np.float32)
    everyone = np.full(len(chosen), features.shape[1])
    scores = torch.from_numpy(network.score(features, everyone).astype(np.float64))
    offsets = torch.from_numpy(examples.offsets[chosen].astype(np.float64))
    both = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([both], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        logits = both[0] * scores + both[1] * said + offsets
        found = (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scale, weight = both.detach().tolist()
    return scale, weight


def ask(
    replay: Replay,
    targets: Targets,
    rankers: Mapping[str, Ranker],
    encoders: Mapping[str, Said],
) -> dict[str, NDArray[np.float64]]:
    """Return the rank of each target by each variant, all asked in one replay."""
    names = [*rankers, *encoders]
    if replay.learner is not None:
        names.append("online learning")
    ranks = {name: np.full(len(targets.events), np.inf) for name in names}
    ranked = np.flatnonzero(targets.ranked)
    everyone = np.array([len(ranked)])
    done = 0
    for batch in target_batches(replay.log, replay.rows, targets, 4 * len(ranked) * len(names)):
        scores = {
            name: np.full((len(batch), len(targets.ranked)), -np.inf, np.float32) for name in names
        }
        for b, event in enumerate(batch.events.tolist()):
            replay.advance(event)
            columns = replay.columns(np.array([event]), ranked[None, :])
            for name, ranker in rankers.items():
                scores[name][b, ranked] = ranker.score(columns, everyone)[0]
            if replay.learner is not None:
                online = replay.online_ranker()
                scores["online learning"][b, ranked] = online.score(columns, everyone)[0]
            for name, said in encoders.items():
                added = said.table[ranked] @ said.vectors[done + b]
                scores[name][b, ranked] = (
                    said.scale * scores[NO_ENCODER][b, ranked] + said.weight * added
                )
        for name in names:
            _rank(scores[name], batch, targets, ranks[name][done : done + len(batch)])
        done += len(batch)
    return ranks


def _rank(
    scores: NDArray[np.float32], batch: TargetBatch, targets: Targets, ranks: NDArray[np.float64]
) -> None:
    starts = np.zeros_like(batch.starts) if targets.repeats else batch.starts
    lists = np.empty((len(batch), 1), np.int64)
    rank_and_list(scores, batch.rows, targets.ranked, batch.past, starts, ranks, lists)


def encoder_variants(world: World) -> dict[str, dict[str, Any]]:
    """Return the encoders that are trained beside the first one, and what each is told."""
    sampled = EncoderOptions(full_up_to=0, sampled=256)
    found: dict[str, dict[str, Any]] = {
        "encoder: GRU, no scene attention": {},
        "encoder: LSTM": {"cell": "lstm"},
        "encoder: linear recurrence": {"cell": "linear"},
        "encoder: softmax over 256 sampled items": {"encoder": sampled},
        "encoder: trained without the trend beside it": {"trend": False},
    }
    if world.attributes:
        found["encoder: no user attributes"] = {"attributes": False}
    return found


def run(world: World, met_only: bool, note: Callable[[str], None]) -> dict[str, Any]:
    """Train and ask all variants; return ranks by name, and the users of the targets."""
    targets = world.targets(met_only)
    rankers: dict[str, Ranker] = {}
    encoders: dict[str, Said] = {}
    try:
        data = world.tower_data()
        first = fit_tower(data)
        note("encoder fitted")
    except TooFewError as error:
        note(f"no encoder: {error}")
        data, first = None, None
    early, late = world.item_weights()
    models = Models(tower=None if first is None else first.tower, item_weights=early)
    examples = world.examples(world.parts, models)
    note(f"{len(examples)} examples")
    rankers[FULL] = world.ranker(examples)
    varies = examples.features[:: max(1, len(examples) // 1000)].astype(np.float32).std(axis=(0, 1))
    for name, columns in GROUPS.items():
        if any(varies[COLUMNS.index(column)] > 1e-4 for column in columns) or name == NO_ENCODER:
            rankers[name] = world.ranker(examples, columns)
            note(name)
    rankers["no training: the fixed blend"] = Blend()
    last = None if data is None or first is None else refit_tower(data, first)
    plain = rankers[NO_ENCODER]
    assert isinstance(plain, Network)
    for name, told in encoder_variants(world).items() if data is not None else ():
        other = world.tower_data(attention=False, **told)
        fit = fit_tower(other)
        scale, weight = weigh(examples, plain, partial(vectors_at, other, fit))
        vectors = vectors_at(other, refit_tower(other, fit), targets.events)
        encoders[name] = Said(*vectors, scale=scale, weight=weight)
        note(name)
    tower = None if last is None else last.tower
    models = Models(ranker=rankers[FULL], tower=tower, item_weights=late)  # type: ignore[arg-type]
    replay = Replay(
        in_memory(world.parts, models), world.log, world.serving(), learner=Learner(world.kinds)
    )
    ranks = ask(replay, targets, rankers, encoders)
    note("asked")
    raw = not_whitened(world.parts)
    network = world.ranker(world.examples(raw, Models()))
    serving = trained_with(network.info, world.serving())
    ranks |= ask(Replay(in_memory(raw), world.log, serving, network), targets, {RAW: network}, {})
    note(RAW)
    return {"ranks": ranks, "users": world.log.users[targets.events]}


def figures(
    ranks: Mapping[str, NDArray[np.float64]], users: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Return the metrics of each variant, and its difference from its comparison.

    `difference` is mean, low and high of NDCG@10 less that of `against`; `interval` is that of the
    variant's own NDCG@10. Both intervals are of 95 %, by user.
    """
    found = []
    for name, own in ranks.items():
        gains = gains_at_k(own, 10)
        line: dict[str, Any] = {
            "name": name,
            "hit_rate_at_10": hits_at_k(own, 10).mean(),
            "ndcg_at_10": gains.mean(),
            "interval": mean_interval(gains, users, 0),
        }
        if name != FULL:
            against = NO_ENCODER if name == RAW else FULL
            other = gains_at_k(ranks[against], 10)
            low, high = paired_interval(gains, other, users, 0)
            line |= {"against": against, "difference": [(gains - other).mean(), low, high]}
        found.append(line)
    return found


def table(variants: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of `figures`."""
    lines = [
        "| | HR@10 | NDCG@10 | difference in NDCG@10 | 95 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in variants:
        line = f"| {one['name']} | {one['hit_rate_at_10']:.4f} | {one['ndcg_at_10']:.4f} |"
        if "difference" in one:
            mean, low, high = one["difference"]
            line += f" {mean:+.4f} | {low:+.4f} to {high:+.4f} |"
        else:
            low, high = one["interval"]
            line += f" | {low:.4f} to {high:.4f} |"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Make the table as told by the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=Path, action="append", required=True)
    parser.add_argument("--events", type=Path, action="append", required=True)
    parser.add_argument("--users", type=Path, action="append")
    parser.add_argument("--out", type=Path, required=True, help="versions there lend encoded texts")
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--repeats", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    told = parser.parse_args()
    started = time.perf_counter()

    def note(line: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {line}", file=sys.stderr, flush=True)

    world, _ = read_world(told)
    note(f"{len(world.log)} events, {world.parts.items.live} items")
    found = run(world, told.core > 1, note)
    variants = figures(found["ranks"], found["users"])
    print(table(variants))
    store(told.result, {"targets": len(found["users"]), "variants": variants})


if __name__ == "__main__":
    main()
