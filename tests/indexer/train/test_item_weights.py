"""The fit of item weights: its closed form, its choices on validation events, and when none is."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.data.histories import EventLog, read_event_log
from indexer.evaluate.ease import co_counts, ease_weights
from indexer.train.fit_models import _published
from indexer.train.item_weights import (
    WIDTH,
    WeightsData,
    _rank,
    fit_item_weights,
    largest,
    refit_item_weights,
    weights_data,
)
from tests.worlds import World
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id
from tracker.scoring.item_weights import ItemWeights
from tracker.scoring.network import RankerInfo
from tracker.scoring.retrieval import Retrieval

ITEMS, GROUP = 30, 5


def log_of(folder: Path, users: int = 160, follows: float = 0.9) -> EventLog:
    """Return a log of users who choose within their own group of items, most of the time."""
    random = np.random.default_rng(3)
    events = []
    for user in range(users):
        group = GROUP * random.integers(ITEMS // GROUP)
        for n in range(8):
            own = random.random() < follows
            item = group + random.integers(GROUP) if own else random.integers(ITEMS)
            time = 1.7e9 + 1000.0 * n + random.random()
            events.append(
                {"user_id": f"u{user}", "item_id": f"i{item}", "kind": "like", "timestamp": time}
            )
    events.sort(key=lambda one: float(str(one["timestamp"])))
    path = folder / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, events)))
    return read_event_log([path], Kinds.default(), 2e9)


def data_of(log: EventLog, repeats: bool = True) -> WeightsData:
    return weights_data(World(ITEMS).items, log, "gts", 28, repeats)


def fitted_of(log: EventLog) -> ItemWeights:
    fitted, why = fit_item_weights(data_of(log))
    assert fitted is not None, why
    return fitted


def test_weights_are_the_largest_of_the_closed_form_over_the_events_of_the_fit(
    tmp_path: Path,
) -> None:
    log = log_of(tmp_path)
    data, model = data_of(log), fitted_of(log)
    rows, users = data.rows[data.early], log.users[data.early]
    whole = ease_weights(co_counts(rows, users), model.info.regularisation)
    assert model.hashes.tolist() == [hash_id(f"i{item}") for item in range(ITEMS)]
    for item in range(ITEMS):
        kept = model.others[item] >= 0
        order = np.argsort(-whole[item], kind="stable")[: kept.sum()]
        assert sorted(model.others[item, kept]) == sorted(order)
        np.testing.assert_allclose(model.weights[item, kept], whole[item, order], rtol=1e-3)
        assert (np.diff(model.weights[item]) <= 0.0).all()
    own = model.others[:, 0] // GROUP == np.arange(ITEMS) // GROUP
    assert own.mean() > 0.9
    assert model.info.ndcg_at_10 > 0.2


def test_the_last_fit_has_the_validation_events_too_and_the_same_settings(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    data, model = data_of(log), fitted_of(log)
    last = refit_item_weights(data, model)
    assert last.info == model.info
    rows, users = data.rows[data.whole], log.users[data.whole]
    assert data.whole.sum() > data.early.sum()
    whole = ease_weights(co_counts(rows, users), model.info.regularisation)
    np.testing.assert_allclose(last.weights[:, 0], whole.max(axis=1), rtol=1e-3)


def test_too_few_validation_events_give_a_reason_and_no_weights(tmp_path: Path) -> None:
    fitted, why = fit_item_weights(data_of(log_of(tmp_path, users=20)))
    assert fitted is None
    assert "validation events; at least 100 are needed" in why


def test_weights_that_neither_rank_nor_find_are_not_published(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    data, model = data_of(log), fitted_of(log)
    ranks = RankerInfo(["trend_short", "item_weights"], (2, 2))
    finds = RankerInfo(["trend_short"], (2, 2), retrieval=Retrieval(item_weights=4))
    none, note = _published(data, model, "", RankerInfo(["trend_short"], (2, 2)))
    assert none is None
    assert "lists gain nothing by them" in note
    for info, use in ((ranks, "ranking"), (finds, "candidates")):
        last, note = _published(data, model, "", info)
        assert last is not None
        assert note.startswith("item weights: 30 items speak for up to")
        assert note.endswith(f"; for {use}")
    assert _published(data, None, "too few", ranks) == (
        None, "no item weights are learned: too few",
    )  # fmt: skip


@pytest.mark.parametrize("repeats", [False, True])
def test_ranks_are_those_of_the_sums_written_out(repeats: bool) -> None:
    random = np.random.default_rng(0)
    whole = random.normal(size=(20, 20)).astype(np.float32)
    others, weights = largest(whole, 6)
    dense = np.zeros_like(whole)
    for item in range(20):
        kept = others[item] >= 0
        dense[item, others[item, kept]] = weights[item, kept]
    targets = random.integers(-1, 20, 30)
    pasts = [random.integers(-1, 20, random.integers(5)) for _ in targets]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in pasts])])
    ranks = np.empty(30)
    _rank(others, weights, 0.5, targets, np.concatenate(pasts), starts, repeats, ranks)
    for target, past, rank in zip(targets.tolist(), pasts, ranks.tolist(), strict=True):
        sums: NDArray[np.float64] = np.zeros(20)
        for age, item in enumerate(past.tolist()):
            if item >= 0:
                sums += 0.5**age * dense[item]
        if not repeats:
            sums[[item for item in past.tolist() if item >= 0 and item != target]] = 0.0
        expected = (
            np.inf if target < 0 or sums[target] <= 0.0 else 1.0 + (sums > sums[target]).sum()
        )
        assert rank == expected


def test_the_largest_come_first_and_what_is_not_above_zero_is_left_out() -> None:
    whole = np.array([[0.0, 3.0, -1.0], [2.0, 0.0, 5.0], [0.0, 0.0, 0.0]], np.float32)
    others, weights = largest(whole, 2)
    assert others.tolist() == [[1, -1], [2, 0], [-1, -1]]
    assert weights.tolist() == [[3.0, 0.0], [5.0, 2.0], [0.0, 0.0]]
    assert largest(whole)[0].shape == (3, min(WIDTH, 3))
