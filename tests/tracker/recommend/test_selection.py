"""Picking by score, diversity and what was seen."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tracker.kernels.arithmetic import dot
from tracker.recommend.selection import select

AXES = np.eye(4, dtype=np.float32)
# Rows 0, 1 and 2 are alike, row 3 is not.
VECTORS = AXES[[0, 0, 0, 1]]


@pytest.fixture(params=["native", "python"])
def pick(request: pytest.FixtureRequest) -> Any:
    kernel: Any = select if request.param == "native" else select.py_func  # type: ignore[attr-defined]

    def run(
        scores: list[float],
        *,
        k: int,
        diversity: float = 0.0,
        show_seen: bool = True,
        unseen: int | None = None,
        rows: list[int] | None = None,
        vectors: NDArray[np.float32] = VECTORS,
    ) -> list[int]:
        size = len(scores)
        given = np.array([list(range(size)) if rows is None else rows], np.int32)
        picks = np.empty((1, k), np.int64)
        kernel(
            k, diversity, show_seen, vectors, given.reshape(1, size),
            np.array([scores], np.float32).reshape(1, size), np.array([size]),
            np.array([size if unseen is None else unseen]), picks,
        )  # fmt: skip
        return picks[0].tolist()  # type: ignore[no-any-return]

    return run


def test_without_diversity_picks_are_by_score(pick: Any) -> None:
    assert pick([0.1, 0.9, 0.5, 0.7], k=3) == [1, 3, 2]


def test_with_diversity_an_unlike_item_comes_before_a_better_like_one(pick: Any) -> None:
    assert pick([1.0, 0.9, 0.8, 0.5], k=3, diversity=0.5) == [0, 3, 1]


def test_ties_go_to_the_lower_row(pick: Any) -> None:
    assert pick([0.5, 0.5, 0.5], k=3, rows=[2, 0, 1]) == [1, 2, 0]


def test_seen_items_follow_all_unseen_ones_however_well_they_score(pick: Any) -> None:
    assert pick([0.1, 0.2, 0.9, 0.8], k=4, unseen=2) == [1, 0, 2, 3]


def test_seen_items_too_are_picked_for_diversity_from_all_before(pick: Any) -> None:
    assert pick([0.5, 1.0, 0.9, 0.0], k=3, unseen=1, diversity=0.9) == [0, 3, 1]


def test_seen_items_are_left_out_unless_there_is_nothing_else(pick: Any) -> None:
    assert pick([0.1, 0.2, 0.9, 0.8], k=4, unseen=2, show_seen=False) == [1, 0, -1, -1]
    assert pick([0.1, 0.2, 0.9, 0.8], k=2, unseen=0, show_seen=False) == [2, 3]


def test_fewer_candidates_than_wanted_end_in_minus_one(pick: Any) -> None:
    assert pick([0.5], k=3) == [0, -1, -1]
    assert pick([], k=2) == [-1, -1]


def test_picks_are_those_of_a_comparison_of_all_with_all() -> None:
    random = np.random.default_rng(5)
    users, size, k = 60, 12, 6
    vectors = random.normal(size=(40, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.array([random.permutation(40)[:size] for _ in range(users)], np.int32)
    scores = np.round(random.normal(size=(users, size)), 1).astype(np.float32)
    n_rows = random.integers(0, size + 1, users)
    n_unseen = np.minimum(random.integers(0, size + 1, users), n_rows)
    for diversity in (0.1, 0.6, 1.0):
        picks = np.empty((users, k), np.int64)
        select(k, diversity, True, vectors, rows, scores, n_rows, n_unseen, picks)
        for b in range(users):
            expected = _slowly(
                k, diversity, vectors[rows[b]], rows[b], scores[b, : n_rows[b]], int(n_unseen[b])
            )
            assert picks[b].tolist() == expected + [-1] * (k - len(expected))


def _slowly(
    k: int,
    diversity: float,
    vectors: NDArray[np.float32],
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
    unseen: int,
) -> list[int]:
    """Return the picks of one user, each by the gains of all that are left."""
    if not len(scores):
        return []
    span = scores.max() - scores.min() if scores.max() > scores.min() else np.float32(1.0)
    values = np.float32(1.0 - diversity) * (scores - scores.min()) / span
    picked: list[int] = []
    for turn in range(min(k, len(scores))):
        left = range(unseen) if turn < unseen else range(unseen, len(scores))
        gains = {
            c: values[c]
            if not turn
            else values[c]
            - np.float32(diversity) * np.float32(max(dot(vectors[p], vectors[c]) for p in picked))
            for c in left
            if c not in picked
        }
        picked.append(min(gains, key=lambda c: (-gains[c], rows[c])))
    return picked
