"""How rules of whitening serve catalogues of 20 to 20,000 items: nearest items, and content hits.

    python -m benchmarks.whitening --data data

Three catalogues (the demonstration's shop, groceries and films) and seeded parts of them are
whitened by each rule. Measured are the share of an item's five nearest that are of its own first
category, at full width; and how often the next item of a user is among the ten nearest to the
decayed sum of the user's last items, in the 64 dimensions that states and index have. No trend, no
neighbours, nothing trained.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality import FILES, FILMS, GROCERIES
from benchmarks.results import ROOT, add_option, store
from indexer.data.catalog import Item, read_items
from indexer.data.histories import read_event_log, split
from indexer.items.item_encoder import ItemEncoder
from indexer.items.whitening import EVEN_ITEMS, Whitening, fit_whitening
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id
from tracker.items.vectors import Vectors, leading, nearest_rows

SIZES = (20, 40, 80, 150, 300, 1000, 5000, 20000)
DIM = 64
NEAREST = 5
LATEST = 20
DECAY = 0.8
K = 10
SEEDS = 5
NOT_AFTER = 4e9
MEAN_ALONE = 1e12

RULES = ("none", "mean", "before", "1000", "5000", "20000")
"""`before` shrinks by the error of the estimate alone; N by N / (N + items), too."""


@dataclass(frozen=True)
class Target:
    """One held-out choice: the row of the item, the user's last rows, and rows not to rank."""

    row: int
    past: list[int]
    seen: list[int]


def whitening_by(rule: str, encodings: NDArray[np.float16]) -> Whitening:
    """Return the whitening of encodings (N, W) by a rule."""
    if rule == "before":
        return fit_whitening(encodings, 0.0)
    if rule in ("none", "mean"):
        fitted = fit_whitening(encodings, MEAN_ALONE)
        return fitted if rule == "mean" else replace(fitted, mean=np.zeros_like(fitted.mean))
    return fit_whitening(encodings, float(rule))


def own_category(vectors: Vectors, categories: NDArray[Any]) -> float:
    """Return the share of the five nearest of each item that are of its category."""
    nearest = nearest_rows(vectors, len(vectors), NEAREST)
    found = nearest >= 0
    same = categories[nearest] == categories[:, None]
    return float((same & found).sum() / found.sum())


def hits_of(vectors: Vectors, targets: Sequence[Target]) -> int:
    """Return how many targets are among the ten items nearest to the user's last ones."""
    hits = 0
    for target in targets:
        past = target.past[-LATEST:]
        weights = (DECAY ** np.arange(len(past), dtype=np.float32))[::-1]
        scores = vectors @ (weights @ vectors[past])
        scores[target.seen] = -np.inf
        hits += int((scores > scores[target.row]).sum()) < K
    return hits


def targets_of(items: Sequence[Item], events: Path, kinds: Kinds, repeats: bool) -> list[Target]:
    """Return the positive choices of the last tenth of the time, of users with an earlier one."""
    log = read_event_log([events], kinds, NOT_AFTER)
    rows = {hash_id(item.item_id): row for row, item in enumerate(items)}
    is_test = np.zeros(len(log), bool)
    is_test[split(log, "gts").test] = True
    users = log.users.tolist()
    past: dict[int, list[int]] = {}
    seen: dict[int, set[int]] = {}
    targets = []
    for event, item in enumerate(log.batch.items.tolist()):
        row, user = rows.get(item, -1), users[event]
        if row < 0:
            continue
        positive = bool(log.batch.weights[event] > 0)
        own, known = past.setdefault(user, []), seen.setdefault(user, set())
        if is_test[event] and positive and own and (repeats or row not in known):
            targets.append(Target(row, own[-LATEST:], [] if repeats else sorted(known)))
        if positive:
            own.append(row)
        known.add(row)
    return targets


def part_of(targets: Sequence[Target], rows: NDArray[np.int64], items: int) -> list[Target]:
    """Return the targets on a part of the catalogue, with the positions in the part."""
    place = np.full(items, -1, np.int64)
    place[rows] = np.arange(len(rows))

    def kept(old: list[int]) -> list[int]:
        return [int(place[row]) for row in old if place[row] >= 0]

    moved = [
        Target(int(place[one.row]), kept(one.past), kept(one.seen))
        for one in targets
        if place[one.row] >= 0
    ]
    return [one for one in moved if one.past]


def measure(
    encodings: NDArray[np.float16], items: Sequence[Item], targets: Sequence[Target], size: int
) -> dict[str, Any]:
    """Measure all rules on parts of a size, the mean over seeds; all items need no seed."""
    categories = np.array([item.label() for item in items])
    count = len(items)
    seeds = SEEDS if size < min(count, 1000) else 1
    shares, hits = dict.fromkeys(RULES, 0.0), dict.fromkeys(RULES, 0.0)
    asked = 0
    for seed in range(seeds):
        rows = np.arange(count)
        if size < count:
            rows = np.sort(np.random.default_rng(seed).choice(count, size, replace=False))
        part = part_of(targets, rows, count)
        asked += len(part)
        for rule in RULES:
            full = whitening_by(rule, encodings[rows]).apply(encodings[rows])
            shares[rule] += own_category(full, categories[rows]) / seeds
            hits[rule] += hits_of(leading(full, DIM), part)
    rules = {
        rule: {"own_category": shares[rule]}
        | ({"hit_rate_at_10": hits[rule] / asked} if asked else {})
        for rule in RULES
    }
    return {"items": min(size, count), "parts": seeds, "targets": asked, "rules": rules}


def main() -> None:
    """Encode each catalogue once, and print a line for each size and rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help=f"has {FILMS}/ and {GROCERIES}/")
    add_option(parser)
    given = parser.parse_args()
    shop = ROOT / "tracker" / "demo_data" / "items.jsonl"
    catalogues = {
        "shop": (shop, None),
        "groceries": (given.data / GROCERIES / FILES["items"], Kinds.default()),
        "films": (given.data / FILMS / FILES["items"], Kinds.default(0, 10)),
    }
    encoder = ItemEncoder(device="cpu")
    report: dict[str, Any] = {}
    for name, (path, kinds) in catalogues.items():
        items = read_items([path]).items
        encodings = encoder.encode([item.encoded_text() for item in items])
        targets = []
        if kinds is not None:
            events = path.with_name(FILES["events"])
            targets = targets_of(items, events, kinds, repeats=name == "groceries")
        sizes = [size for size in SIZES if size < len(items)] + [len(items)]
        report[name] = [measure(encodings, items, targets, size) for size in sizes]
        for line in report[name]:
            for rule, figures in line["rules"].items():
                print(name, line["items"], rule, figures, flush=True)
    store(given.result, {"served": EVEN_ITEMS, "dim": DIM, "catalogues": report})


if __name__ == "__main__":
    main()
