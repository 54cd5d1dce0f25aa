"""Validation of a text encoder: the rank of the next item by content alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.evaluate.baselines import CONTENT_DECAY, RECENT_EVENTS
from indexer.evaluate.metrics import hit_rate_at_k, ndcg_at_k
from indexer.finetune.data import Integers, Parts, Texts, pasts
from indexer.items.item_encoder import Encodings
from indexer.items.whitening import fit_whitening

K = 10

_QUERY_EVENTS = 8
"""Latest items of a past that a sample keeps; the weight of the next one is .8 ** 8 = .17."""

_BLOCK = 128

Scores = dict[str, float]


class Validation(Protocol):
    """Scores of encodings, before, during and after the training."""

    @property
    def measure(self) -> str:
        """Name of the score that decides; higher is better."""

    @property
    def texts(self) -> Integers:
        """Texts whose encodings are needed, (M,) int64."""

    def scores(self, encodings: Encodings) -> Scores:
        """Return the scores of the encodings (M, W) float16 of `texts`, by name."""
        ...


@dataclass(frozen=True, slots=True)
class NextItems:
    """Ranks the next item of users by content alone, as the baseline `content` of an evaluation.

    The I items that are ranked are those of the catalogue, or a sample.

    Attributes:
        texts: (M,) the texts of the items.
        items: (I,) text of each item, by position in `texts`.
        targets: (Q,) the next items, by position in `items`.
        past: the items before each target, latest first, by position in `items`.
        cold: (Q,) bool, targets whose item has no event in training.
        repeats: whether items of the past are ranked.
        measure: name of the score that decides.
    """

    texts: Integers
    items: Integers
    targets: Integers
    past: list[Integers]
    cold: NDArray[np.bool_]
    repeats: bool
    measure: str = "ndcg_at_10"

    @classmethod
    def of(
        cls,
        log: EventLog,
        rows: Integers,
        parts: Parts,
        texts: Texts,
        repeats: bool,
        most: int,
        random: np.random.Generator,
    ) -> "NextItems":
        """Return the validation targets that have a known item in their past.

        Args:
            log: all events.
            rows: (E,) catalogue position of each event's item, -1 for none.
            parts: the division of the events.
            texts: texts of the catalogue.
            repeats: whether items of the past are ranked.
            most: maximum number of targets.
            random: draws a sample if there are more.
        """
        places = np.flatnonzero(parts.validation & (rows >= 0))
        if len(places) > most:
            places = np.sort(random.choice(places, most, replace=False))
        past = pasts(log, rows, places, parts.seen, len(log))
        usable = np.array([n for n, own in enumerate(past) if len(own)], np.int64)
        cold = np.ones(len(texts.of_item), np.bool_)
        cold[rows[parts.train & (rows >= 0)]] = False
        targets = rows[places[usable]]
        own = [past[n] for n in usable.tolist()]
        everything = np.arange(len(texts.texts))
        return cls(everything, texts.of_item, targets, own, cold[targets], repeats)

    def sample(self, most: int, random: np.random.Generator) -> "NextItems":
        """Return a sample of the items, and the targets that can be ranked among them.

        Targets are drawn at random, each with the latest items of its past. Other targets stay if
        their item and the three latest of their past are in the sample.

        Args:
            most: maximum number of items.
            random: draws the targets.
        """
        if len(self.items) <= most:
            return self
        sampled: set[int] = set()
        for number in random.permutation(len(self.targets)).tolist():
            needed = {int(self.targets[number]), *self.past[number][:_QUERY_EVENTS].tolist()}
            if len(sampled | needed) > most:
                break
            sampled |= needed
        items = np.array(sorted(sampled), np.int64)
        place = np.full(len(self.items), -1, np.int64)
        place[items] = np.arange(len(items))
        usable = np.flatnonzero(
            [
                place[target] >= 0 and bool((place[own[:3]] >= 0).all())
                for target, own in zip(self.targets, self.past, strict=True)
            ]
        )
        texts, of_item = np.unique(self.items[items], return_inverse=True)
        own = [place[self.past[number]] for number in usable.tolist()]
        return replace(
            self,
            texts=self.texts[texts],
            items=of_item,
            targets=place[self.targets[usable]],
            past=[places[places >= 0] for places in own],
            cold=self.cold[usable],
        )

    def scores(self, encodings: Encodings) -> Scores:
        """Whiten and rank; return hit rate and NDCG at 10, for all targets and for cold ones.

        Cold figures are NaN if no target is cold.
        """
        vectors = fit_whitening(encodings).apply(encodings)[self.items]  # (I, F)
        ranks = self._ranks(vectors)
        return {
            "hit_rate_at_10": hit_rate_at_k(ranks, K),
            "ndcg_at_10": ndcg_at_k(ranks, K),
            "targets": float(len(ranks)),
            "cold_hit_rate_at_10": hit_rate_at_k(ranks[self.cold], K),
            "cold_ndcg_at_10": ndcg_at_k(ranks[self.cold], K),
            "cold_targets": float(self.cold.sum()),
        }

    def _ranks(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        ranks = np.empty(len(self.targets))
        for start in range(0, len(ranks), _BLOCK):
            targets = self.targets[start : start + _BLOCK]
            past = self.past[start : start + _BLOCK]
            queries = np.stack([_query(vectors, own) for own in past])
            scores = queries @ vectors.T  # (block, I)
            own = scores[np.arange(len(targets)), targets][:, None]
            better = (scores > own).sum(1)
            level = (scores == own).sum(1) - 1
            for n, seen in enumerate([] if self.repeats else map(np.unique, past)):
                better[n] -= (scores[n, seen] > own[n]).sum()
                level[n] -= (scores[n, seen] == own[n]).sum()
            block = 1.0 + better.astype(np.float64) + level / 2.0
            if not self.repeats:
                repeated = [
                    bool((row == rows).any()) for row, rows in zip(targets, past, strict=True)
                ]
                block[np.array(repeated, np.bool_)] = math.inf
            ranks[start : start + len(block)] = block
        return ranks


def _query(vectors: NDArray[np.float32], past: Sequence[int] | Integers) -> NDArray[np.float32]:
    recent = past[:RECENT_EVENTS]
    weights = (CONTENT_DECAY ** np.arange(len(recent))).astype(np.float32)
    query: NDArray[np.float32] = weights @ vectors[recent]
    return query
