"""Retrieval: the channels' quotas and the first cut, as a training chose them or by default."""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.scoring.features import FEATURE, FEATURES, TREND_KNEE

TRENDS = FEATURES[FEATURE.trend_short : FEATURE.age]
"""Features that are trends: a list of the strongest may be a source of candidates."""

ITEM_FEATURES = (*TRENDS, "age", "no_event", "idle", "rising", "rising_fast")
"""Features of an item alone: the same for every user at a time."""

MIXED, SCORE, NEW = "mixed", "score", "new"
"""Names of lists beside TRENDS: what trends by the half-lives of `ItemCounts.trend_seconds`, items
of the highest item score, and those first chosen the latest."""

LISTS = (MIXED, SCORE, NEW, *TRENDS)
"""Names of the lists that all users have in common."""


class _CheapColumns(NamedTuple):
    content: int = 0
    item: int = 1
    neighbours_95: int = 2
    negative: int = 3
    repeats: int = 4
    encoder: int = 5
    scene_short: int = 6
    scene_long: int = 7
    neighbours_60: int = 8
    neighbours_long: int = 9
    next: int = 10
    neighbours_live: int = 11
    repeat_recency: int = 12
    item_weights: int = 13


CHEAP = _CheapColumns()
"""Columns of the first cut. `content` is the cosine at the index's width with the last positive
events, .8 an event; `item` is the item score; the others are the features of their names."""


class ChannelRecall(msgspec.Struct, frozen=True):
    """Recall of one source of candidates on validation events, in shares of the targets.

    `alone` is the share that is among its first `rows` rows, `beyond` the share that is there and
    among no other source's.
    """

    source: str
    rows: int
    alone: float
    beyond: float


class Recall(msgspec.Struct, frozen=True):
    """Recall of the candidates on `targets` validation events.

    `candidates` and `cut` are shares of the targets; `served` is the share that is left of the hits
    of the ranking of all that any source found; `slices` are the shares of the targets in the
    candidates by history and by the age of the item; `sources` are single channels.
    """

    targets: int
    candidates: float
    cut: float
    served: float
    slices: dict[str, float]
    sources: list[ChannelRecall]


class Retrieval(msgspec.Struct, frozen=True):
    """Candidates and first cut, as a training chose them; without one the defaults serve.

    `content`, `recent`, `neighbours`, `scene` (what trends there), `encoder` and `item_weights` are
    rows that each source may give to a user's candidates before others get its room, and `lists`
    those of lists that all users have in common, of LISTS. A source of 0 rows is not searched; a
    search finds `per_search` rows. `reserve` rows of each channel are left by the first cut in any
    case. `diversity` is that of the re-ranking, where no other is set. `score` are weights of
    ITEM_FEATURES in the item score that makes the list `score`; `cut` are weights of ITEM_FEATURES
    and of CHEAP in the first cut, empty for those of the ranker. `recall` is what was measured,
    `microseconds` what a recommendation cost, and `before` what it cost by the defaults.
    """

    content: int = 24
    recent: int = 9
    neighbours: int = 18
    scene: int = 10
    encoder: int = 9
    lists: dict[str, int] = msgspec.field(default_factory=lambda: {MIXED: 5, NEW: 5})
    per_search: int = 40
    reserve: int = 4
    diversity: float = 0.1
    score: dict[str, float] = {}
    cut: dict[str, float] = {}
    recall: Recall | None = None
    microseconds: float | None = None
    before: float | None = None
    item_weights: int = 0

    @property
    def rows(self) -> int:
        """The sum of all quotas."""
        own = self.content + self.recent + self.neighbours + self.scene + self.encoder
        return own + self.item_weights + sum(self.lists.values())


class ItemScore(NamedTuple):
    """Weights (ITEM_FEATURES,) float32 of an item score; of trends only what is above the knee.

    `key` is what two equal ones have in common.
    """

    weights: NDArray[np.float32]
    knee: float
    key: tuple[bytes, float]


def item_score(weights: dict[str, float], knee: float = 0.0) -> ItemScore:
    """Return an item score by names of features; others than ITEM_FEATURES are passed over."""
    values = np.array([weights.get(n, 0.0) for n in ITEM_FEATURES], np.float32)
    return ItemScore(values, knee, (values.tobytes(), knee))


_TREND = item_score({"trend_short": 1.0}, TREND_KNEE)


def cut_of(
    retrieval: Retrieval, weights: NDArray[np.float32]
) -> tuple[NDArray[np.float32], ItemScore]:
    """Return the weights (CHEAP,) of the first cut, and of its item score.

    Args:
        retrieval: with `cut`, it says both.
        weights: (6,) of the ranker, see `Ranker.cut_weights`: the trend is by the short half-life.
    """
    if retrieval.cut:
        own = {**retrieval.cut, "item": 1.0}
        return np.array([own.get(n, 0.0) for n in CHEAP._fields], np.float32), item_score(own)
    padded = np.zeros(len(CHEAP), np.float32)
    padded[: len(weights)] = weights
    return padded, _TREND


def recall_lines(retrieval: Retrieval) -> list[str]:
    """Return lines for people: where candidates come from, and what they hold."""
    recall = retrieval.recall
    if recall is None:
        return []
    by_source = ", ".join(
        f"{one.source} {one.rows} ({one.alone:.1%}, {one.beyond:.1%})" for one in recall.sources
    )
    return [
        f"by source, with the share of the targets that it finds, and finds alone: {by_source}",
        f"{recall.candidates:.1%} of {recall.targets} validation targets,"
        f" {recall.cut:.1%} after the first cut, and {recall.served:.1%} of what ranking all would"
        f" show; {retrieval.microseconds} us a list, {retrieval.before} by the fixed quotas",
    ]
