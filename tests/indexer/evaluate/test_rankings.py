"""Ranks and lists from scores, against the plain definition."""

from typing import Any

import numpy as np
import pytest

from indexer.evaluate import metrics as rankings
from indexer.evaluate.metrics import rank_and_list, rank_of


@pytest.fixture(params=["native", "plain"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(rankings, "_rank_and_list", rankings._rank_and_list.py_func)  # type: ignore[attr-defined]


def ranked_and_listed(
    scores: Any, targets: list[int], ranked: Any, masked: list[list[int]], k: int = 3
) -> tuple[list[float], list[list[int]]]:
    ranks, lists = np.empty(len(targets)), np.empty((len(targets), k), np.int64)
    rank_and_list(
        np.asarray(scores, np.float32), np.array(targets), np.asarray(ranked, np.bool_),
        np.array([row for rows in masked for row in rows], np.int64),
        np.cumsum([0, *map(len, masked)]), ranks, lists,
    )  # fmt: skip
    return ranks.tolist(), lists.tolist()


@pytest.mark.usefixtures("kernel")
def test_ranks_and_lists_are_those_of_a_sort() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, (40, 12)).astype(np.float32)
    scores[random.random(scores.shape) < 0.1] = -np.inf
    ranked = random.random(12) < 0.8
    targets = [int(t) if ranked[t] else -1 for t in random.integers(0, 12, 40)]
    masked = [random.integers(0, 12, random.integers(0, 5)).tolist() for _ in range(40)]
    ranks, lists = ranked_and_listed(scores, targets, ranked, masked)
    for b in range(40):
        shown = np.where(ranked, scores[b], np.float32(-np.inf))
        assert ranks[b] == rank_of(shown, targets[b], np.array(masked[b], np.int64))
        shown[masked[b]] = -np.inf
        best = [row for row in np.argsort(-shown, kind="stable").tolist() if shown[row] > -np.inf]
        assert lists[b] == (best + [-1] * 3)[:3]


@pytest.mark.usefixtures("kernel")
def test_a_target_that_is_masked_or_not_ranked_has_rank_infinity() -> None:
    scores = [[3.0, 2.0, 1.0]] * 3
    ranks, lists = ranked_and_listed(scores, [0, -1, 1], [True, True, False], [[0], [], []])
    assert ranks == [np.inf, np.inf, 2.0]
    assert lists == [[1, -1, -1], [0, 1, -1], [0, 1, -1]]


@pytest.mark.usefixtures("kernel")
def test_a_score_that_is_no_number_is_not_ranked_and_refused_of_a_target() -> None:
    scores = [[np.nan, 2.0, 1.0]]
    assert ranked_and_listed(scores, [2], [True] * 3, [[]]) == ([2.0], [[1, 2, -1]])
    with pytest.raises(ValueError, match="the score at 0 is NaN"):
        ranked_and_listed(scores, [0], [True] * 3, [[]])
