"""Simple recommenders on worlds small enough to count by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.evaluate import baselines as module
from indexer.evaluate.baselines import (
    Baseline,
    Content,
    DecayedPopularity,
    Ease,
    ItemKnn,
    OwnFrequent,
    Popularity,
)
from indexer.evaluate.ease import co_counts, ease_weights
from indexer.evaluate.targets import TargetBatch

DAY = 86400.0
NOBODY = np.zeros(0, np.int64)


def rows(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def asked(*pasts: NDArray[np.int64], events: tuple[int, ...] | None = None) -> TargetBatch:
    """Return targets of users with these pasts, latest first, at these places of the log."""
    starts = np.cumsum([0, *map(len, pasts)])
    at = rows(*(range(len(pasts)) if events is None else events))
    return TargetBatch(at, np.zeros(len(pasts), np.int64), np.concatenate(pasts), starts)


def one(model: Baseline, past: NDArray[np.int64]) -> NDArray[np.float32]:
    (found,) = model.scores(asked(past))
    return np.asarray(found)


def decayed(items: int, *events: tuple[int, float]) -> DecayedPopularity:
    return DecayedPopularity(
        rows(*(row for row, _ in events)), np.array([time for _, time in events]), items, DAY
    )


def checkerboard() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users 0..9 choose items of their own parity, each all of it but one."""
    users = rows(*(u for u in range(10) for i in range(10) if (u + i) % 2 == 0 and i != u))
    items = rows(*(i for u in range(10) for i in range(10) if (u + i) % 2 == 0 and i != u))
    return users, items


def test_popularity_is_the_training_counts() -> None:
    model = Popularity(rows(0, 2, 2), 4)
    assert model.scores(asked(NOBODY, rows(1))).tolist() == [[1.0, 0.0, 2.0, 0.0]] * 2


def test_decayed_popularity_halves_in_a_half_life() -> None:
    # The third event is late, and counts half; the last is of no known item.
    model = decayed(3, (0, 0.0), (0, 0.0), (1, DAY), (1, 0.0), (-1, DAY))
    (found,) = model.scores(asked(NOBODY, events=(5,)))
    assert found[0] - found[1] == pytest.approx(np.log2(1.0 / 1.5) + 0.0, abs=1e-6)
    assert found[2] < found[1] - 1000


def test_decayed_popularity_counts_what_came_before_each_target_only() -> None:
    events = [(0, 0.0), (1, 1.0), (1, 2.0), (2, 3.0)]
    found = [decayed(3, *events).scores(asked(NOBODY, events=(n,)))[0] for n in range(5)]
    together = decayed(3, *events)
    np.testing.assert_array_equal(
        together.scores(asked(*[NOBODY] * 3, events=(0, 1, 2))), found[:3]
    )
    np.testing.assert_array_equal(together.scores(asked(*[NOBODY] * 2, events=(3, 4))), found[3:])
    assert (found[0] == -1e6).all()
    assert [int(scores.argmax()) for scores in found[1:]] == [0, 1, 1, 1]


def test_decayed_popularity_survives_years() -> None:
    years = [(1, year * 365 * DAY) for year in range(1, 20) for _ in range(2)]
    (found,) = decayed(2, (0, 0.0), *years).scores(asked(NOBODY, events=(39,)))
    assert np.isfinite(found).all()
    assert found[1] > found[0]


def brute_force_knn(
    users: NDArray[np.int64], items: NDArray[np.int64], count: int, past: NDArray[np.int64]
) -> NDArray[np.float64]:
    table = np.zeros((users.max() + 1, count))
    table[users, items] = 1.0
    norms = 1.0 / np.sqrt(table.sum(axis=0) + 5.0)
    together = table.T @ table * np.outer(norms, norms)
    np.fill_diagonal(together, 0.0)
    out: NDArray[np.float64] = 0.6 ** np.arange(len(past)) @ together[past]
    return out


def test_item_knn_is_the_decayed_sum_of_cosines() -> None:
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 30, 400), generator.integers(0, 20, 400)
    past = rows(3, 17, 3, 8)
    found = one(ItemKnn(users, items, 20), past)
    np.testing.assert_allclose(found, brute_force_knn(users, items, 20, past), rtol=1e-5)


def test_item_knn_looks_at_the_latest_users_of_an_item_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.evaluate.baselines.MAX_USERS", 1)
    model = ItemKnn(rows(0, 0, 1, 1), rows(0, 1, 0, 2), 3)
    found = one(model, rows(0))
    assert found[1] == 0.0
    assert found[2] > 0.0


def test_ease_sums_its_weights_from_the_items_of_the_past() -> None:
    users, items = checkerboard()
    found = one(Ease(users, items, 12, 1 << 20, 2.0, 0.6), rows(4, 2))
    weights = ease_weights(co_counts(items, users), 2.0)
    np.testing.assert_allclose(found[:10], weights[4] + 0.6 * weights[2], rtol=1e-5, atol=1e-7)
    assert found[10:].tolist() == [0.0, 0.0]


def test_ease_that_does_not_fit_in_memory_says_so() -> None:
    users, items = checkerboard()
    with pytest.raises(MemoryError, match="EASE over 10 items takes"):
        Ease(users, items, 10, Ease.bytes_needed(10) - 1)


def test_content_is_the_cosine_with_the_decayed_sum() -> None:
    vectors = np.eye(3, dtype=np.float32)
    model = Content(vectors)
    assert model.name == "content"
    np.testing.assert_allclose(one(model, rows(2, 0)), [0.8, 0.0, 1.0])
    last = Content(vectors, events=1)
    assert last.name == "last_item"
    assert one(last, rows(2, 0)).tolist() == [0.0, 0.0, 1.0]


def test_own_items_go_by_frequency_then_recency() -> None:
    found = one(OwnFrequent(5), rows(1, 3, 0, 3))
    assert np.argsort(-found, kind="stable").tolist()[:3] == [3, 1, 0]
    assert found[2] == found[4] == 0.0


def models(users: NDArray[np.int64], items: NDArray[np.int64]) -> list[Baseline]:
    vectors = np.eye(10, dtype=np.float32)
    return [
        Popularity(items, 10),
        DecayedPopularity(items, np.zeros(len(items)), 10),
        ItemKnn(users, items, 10),
        Ease(users, items, 10, 1 << 20),
        Content(vectors),
        Content(vectors, 1),
        OwnFrequent(10),
    ]


def test_every_baseline_answers_for_a_user_without_past_and_without_training() -> None:
    for users, items in (checkerboard(), (NOBODY, NOBODY)):
        for model in models(users, items):
            found = model.scores(asked(NOBODY, rows(4)))
            assert found.shape == (2, 10), model.name
            assert found.dtype == np.float32, model.name
            assert np.isfinite(found).all(), model.name


def test_collaborative_baselines_keep_to_the_parity_of_the_past() -> None:
    users, items = checkerboard()
    for model in (ItemKnn(users, items, 10), Ease(users, items, 10, 1 << 20)):
        found = one(model, rows(0, 2))
        assert found[[4, 6, 8]].min() > found[[1, 3, 5, 7, 9]].max(), model.name


def test_kernels_say_the_same_as_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    users, items = checkerboard()
    many = asked(rows(0, 2, 2), NOBODY, rows(9, 4))
    compiled = [model.scores(many) for model in models(users, items)]
    for name in ("_count_decayed", "_sum_rows", "_count_own", "_sum_neighbours"):
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    plain = [model.scores(many) for model in models(users, items)]
    for found, expected in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
