"""What a text encoder is worth: the next item found by content alone."""

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
"""Past events whose items are kept in a sample of the items; .8 ** 8 is .17."""

_BLOCK = 128

Scores = dict[str, float]


class Examination(Protocol):
    """What encodings are asked, before, while and after they are trained."""

    @property
    def measure(self) -> str:
        """Name the figure of `scores` that decides; higher is better."""

    @property
    def texts(self) -> Integers:
        """Return (M,) the texts whose encodings are asked for."""

    def scores(self, encodings: Encodings) -> Scores:
        """Return figures of the encodings (M, W) of `texts`."""
        ...


@dataclass(frozen=True, slots=True)
class NextItems:
    """The next item of users by content alone, as the baseline `content` of an evaluation ranks.

    The I items that are ranked are all of the catalogue, or a sample. `items` (I,) says which of
    `texts` each has; `targets` (Q,) and `past` (latest first) are positions among the items.
    `cold` (Q,) tells the targets whose item has no event in training. Items of the past are not
    ranked, unless `repeats`.
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
        """Take the validation targets, at most so many, with a known item in their past.

        Args:
            log: all events.
            rows: (E,) each event's item, -1 for none.
            parts: which events are targets, and which may be looked at.
            texts: of the catalogue.
            repeats: whether items of the past are ranked.
            most: targets.
            random: draws them where there are more.
        """
        places = np.flatnonzero(parts.validation & (rows >= 0))
        if len(places) > most:
            places = np.sort(random.choice(places, most, replace=False))
        past = pasts(log, rows, places, parts.seen, len(log))
        asked = np.array([n for n, own in enumerate(past) if len(own)], np.int64)
        cold = np.ones(len(texts.of_item), np.bool_)
        cold[rows[parts.train & (rows >= 0)]] = False
        targets = rows[places[asked]]
        own = [past[n] for n in asked.tolist()]
        everything = np.arange(len(texts.texts))
        return cls(everything, texts.of_item, targets, own, cold[targets], repeats)

    def sample(self, most: int, random: np.random.Generator) -> "NextItems":
        """Keep so many items, and the targets that can still be asked for among them.

        Items come in by targets drawn at random, each with its latest past; the other targets whose
        item and three latest are among them are asked for too.
        """
        if len(self.items) <= most:
            return self
        kept: set[int] = set()
        for number in random.permutation(len(self.targets)).tolist():
            needed = {int(self.targets[number]), *self.past[number][:_QUERY_EVENTS].tolist()}
            if len(kept | needed) > most:
                break
            kept |= needed
        items = np.array(sorted(kept), np.int64)
        place = np.full(len(self.items), -1, np.int64)
        place[items] = np.arange(len(items))
        asked = np.flatnonzero(
            [
                place[target] >= 0 and bool((place[own[:3]] >= 0).all())
                for target, own in zip(self.targets, self.past, strict=True)
            ]
        )
        texts, of_item = np.unique(self.items[items], return_inverse=True)
        own = [place[self.past[number]] for number in asked.tolist()]
        return replace(
            self,
            texts=self.texts[texts],
            items=of_item,
            targets=place[self.targets[asked]],
            past=[places[places >= 0] for places in own],
            cold=self.cold[asked],
        )

    def scores(self, encodings: Encodings) -> Scores:
        """Whiten, rank, and return hit rate and NDCG, of all targets and of cold ones."""
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
            found = 1.0 + better.astype(np.float64) + level / 2.0
            if not self.repeats:
                known = [bool((row == rows).any()) for row, rows in zip(targets, past, strict=True)]
                found[np.array(known, np.bool_)] = math.inf
            ranks[start : start + len(found)] = found
        return ranks


def _query(vectors: NDArray[np.float32], past: Sequence[int] | Integers) -> NDArray[np.float32]:
    recent = past[:RECENT_EVENTS]
    weights = (CONTENT_DECAY ** np.arange(len(recent))).astype(np.float32)
    found: NDArray[np.float32] = weights @ vectors[recent]
    return found
