"""What each part of the model is worth on made-up streams: the whole, and one part less each time.

    OMP_NUM_THREADS=1 python -m benchmarks.stream_parts taste scene --work parts

Each stream of `benchmarks.streams` is trained by protocol gts and asked for its targets, all items
ranked. The ranker's examples are collected once; without a part it is fitted anew without its
columns. All are asked in one replay, so that differences are paired, target by target. What is
measured stays in the folder and is not measured again.
"""

import argparse
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ablation import FULL, GROUPS, NO_ENCODER, World, ask, figures, read_world
from benchmarks.results import ROOT, add_option, store
from benchmarks.streams import CORNERS, Stream, make, write
from indexer.encoder.options import TooFewError
from indexer.encoder.tower import fit_tower, refit_tower
from indexer.items.assemble import in_memory
from indexer.replay.replay import Replay
from indexer.train.ranker import RankerOptions, fit_ranker
from tracker.artifact.models import Models
from tracker.recommend.learner import Learner
from tracker.scoring.blend import Blend, Ranker
from tracker.scoring.context import COLUMNS

NAMES = (
    "plain", "trend-1-hour", "taste", "taste-drift", "taste-new-items", "sequence",
    "repetition-trend", "scene", "cold-trend",
)  # fmt: skip
"""Streams that are measured by default: each knob is turned up in one of them."""

JOINT = "no content and interests"

PARTS: Mapping[str, tuple[str, ...]] = {
    **{name: columns for name, columns in GROUPS.items() if name not in (JOINT, NO_ENCODER)},
    "no content": tuple(name for name in COLUMNS if name.startswith(("content_", "negative"))),
    "no interests": tuple(name for name in COLUMNS if name.startswith(("slot", "interest_"))),
    NO_ENCODER: ("encoder",),
}
"""Groups of columns that a ranker is fitted without; content and interests one by one."""

ONE_NETWORK = "one network"


def run(world: World, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Train and ask the whole model and each variant; return their figures."""
    targets = world.targets(False)
    try:
        data = world.tower_data()
        first = fit_tower(data)
    except TooFewError as error:
        note(f"no encoder: {error}")
        data, first = None, None
    early, late = world.item_weights()
    models = Models(tower=None if first is None else first.tower, item_weights=early)
    examples = world.examples(world.parts, models)
    note(f"{len(examples)} examples")
    rankers: dict[str, Ranker] = {FULL: world.ranker(examples)}
    varies = examples.features[:: max(1, len(examples) // 1000)].astype(np.float32).std(axis=(0, 1))
    for name, columns in PARTS.items():
        if any(varies[COLUMNS.index(column)] > 1e-4 for column in columns):
            rankers[name] = world.ranker(examples, columns)
    rankers[ONE_NETWORK] = fit_ranker(examples, RankerOptions(seed=world.seed, members=1)).network
    rankers["no training: the fixed blend"] = Blend()
    note(f"{len(rankers)} rankers")
    last = None if data is None or first is None else refit_tower(data, first)
    tower = None if last is None else last.tower
    models = Models(ranker=rankers[FULL], tower=tower, item_weights=late)  # type: ignore[arg-type]
    replay = Replay(
        in_memory(world.parts, models), world.log, world.serving(), learner=Learner(world.kinds)
    )
    ranks: dict[str, NDArray[np.float64]] = ask(replay, targets, rankers, {})
    return figures(ranks, world.log.users[targets.events])


def measure(name: str, stream: Stream, folder: Path, note: Callable[[str], None]) -> dict[str, Any]:
    """Return what is measured on a stream, or what was measured before."""
    done = folder / "parts.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        if found["stream"] == asdict(stream):
            return found
    write(make(stream), folder)
    told = Namespace(
        items=[folder / "items.jsonl"], events=[folder / "events.jsonl"], users=None,
        out=folder / "versions", core=1, repeats=bool(stream.repetition), seed=0,
    )  # fmt: skip
    note(name)
    world, _ = read_world(told)
    found = {"stream": asdict(stream), "variants": run(world, note)}
    temporary = done.with_suffix(".new")
    temporary.write_text(json.dumps(found, indent=1, default=float) + "\n")
    temporary.replace(done)
    return json.loads(done.read_text())  # type: ignore[no-any-return]


def main() -> None:
    """Measure the streams that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CORNERS))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "parts")
    add_option(parser)
    given = parser.parse_args()
    names = given.names or list(NAMES)
    if unknown := set(names) - set(CORNERS):
        parser.error(f"no stream is called {', '.join(sorted(unknown))}")
    started = time.perf_counter()

    def note(line: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {line}", file=sys.stderr, flush=True)

    found = {name: measure(name, CORNERS[name], given.work / name, note) for name in names}
    for name, one in found.items():
        print(f"{name}:")
        for variant in one["variants"]:
            mean, low, high = variant.get("difference", [0.0, 0.0, 0.0])
            print(
                f"  {variant['name']:32} NDCG@10 {variant['ndcg_at_10']:.4f}"
                f"  {mean:+.4f} ({low:+.4f} to {high:+.4f})"
            )
    store(given.result, {"streams": found})


if __name__ == "__main__":
    main()
