"""Item weights: sums over a user's items, the search by them, their file, their place in lists."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.worlds import START, World, likes
from tracker.artifact.manifest import LAYOUT, Manifest
from tracker.artifact.models import Models, read_models, write_models
from tracker.artifact.versions import ArtifactError
from tracker.items.view import ItemView
from tracker.recommend.channels import CHANNEL
from tracker.recommend.options import RecommendOptions
from tracker.recommend.recommender import Recommender
from tracker.recommend.shortlist import shortlist
from tracker.scoring.blend import CUT
from tracker.scoring.context import C_ITEM_WEIGHTS, COLUMNS
from tracker.scoring.item_weights import (
    ItemWeights,
    ItemWeightsFileError,
    ItemWeightsInfo,
    WeightColumns,
    find_by_weights,
    find_strongest,
    weigh_rows,
    weight_columns,
)
from tracker.scoring.network import Network, Weights
from tracker.scoring.retrieval import Retrieval
from tracker.users.readings import Histories, read_histories

ITEMS, WIDTH = 12, 4


def weights_of(seed: int = 0, decay: float = 0.9, items: int = ITEMS) -> ItemWeights:
    """Return weights of items i0, i1, ... at random; rows hold 0 to WIDTH others."""
    random = np.random.default_rng(seed)
    others = np.full((items, WIDTH), -1, np.int32)
    values = np.zeros((items, WIDTH), np.float32)
    for item in range(items):
        some = random.permutation(np.delete(np.arange(items), item))[: random.integers(WIDTH + 1)]
        others[item, : len(some)] = some
        values[item, : len(some)] = np.sort(random.uniform(0.01, 0.5, len(some)))[::-1]
    hashes = World(items).items.hashes.copy()
    return ItemWeights(ItemWeightsInfo(items, WIDTH, decay, 30.0, 0.1), hashes, others, values)


def sums_of(model: ItemWeights, past: list[int]) -> NDArray[np.float64]:
    """Return the sums of all items of one user, whose items came in this order."""
    sums = np.zeros(len(model.hashes))
    for age, item in enumerate(reversed(past)):
        for other, weight in zip(model.others[item], model.weights[item], strict=True):
            if other >= 0:
                sums[other] += model.info.decay**age * weight
    return sums


def weight_of(model: ItemWeights, item: int, other: int) -> float:
    """Return how much an item speaks for another."""
    at = np.flatnonzero(model.others[item] == other)
    return float(model.weights[item, at[0]]) if len(at) else 0.0


def world_with(model: ItemWeights | None, past: list[list[int]], **options: Any) -> World:
    """Return a world with these weights, and users who chose items in this order."""
    world = World(ITEMS, users=len(past))
    artifact = replace(world.artifact, models=Models(item_weights=model))
    world.artifact = artifact
    world.recommender = Recommender(artifact, ItemView(world.items), RecommendOptions(**options))
    for user, own in enumerate(past):
        world.send(*likes(user, own))
    return world


def histories_of(world: World, users: int) -> Histories:
    return read_histories(world.asked(list(range(users)), now=START + 100.0), world.items)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 50),
    decay=st.sampled_from([1.0, 0.9, 0.5]),
    past=st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=8), min_size=1, max_size=3),
)
def test_columns_and_search_are_those_of_the_sums_written_out(
    seed: int, decay: float, past: list[list[int]]
) -> None:
    model = weights_of(seed, decay)
    world = world_with(model, past)
    columns = weight_columns(model, world.items)
    histories = histories_of(world, len(past))
    rows = np.tile(np.arange(ITEMS, dtype=np.int32), (len(past), 1))
    found = np.full(rows.shape, 7.0, np.float32)
    via = np.full(rows.shape, -1, np.int8)
    via[:, 0] = 3
    weigh_rows(histories, columns, rows, np.full(len(past), ITEMS), found)
    wanted = np.ones(rows.shape, np.bool_)
    wanted[:, 1] = False
    find_strongest(histories, columns, rows, wanted, via)
    assert (via[:, 1] == -1).all()
    assert (via[:, 0] == 3).all()
    first = np.empty((len(past), 5), np.int32)
    live = ITEMS - 2
    find_by_weights(histories, columns, live, False, first)
    for user, own in enumerate(past):
        sums = sums_of(model, own)
        np.testing.assert_allclose(found[user], np.log2(1.0 + 64.0 * sums), rtol=1e-4, atol=1e-5)
        for item in range(2, ITEMS):
            shares = [decay**age * weight_of(model, one, item) for age, one in enumerate(own[::-1])]
            best = max(shares, default=0.0)
            assert (via[user, item] >= 0) == (best > 0.0)
            assert best == 0.0 or shares[via[user, item]] == pytest.approx(best, rel=1e-5)
        best_rows = [i for i in range(live) if sums[i] > 0.0 and i not in own]
        best_rows.sort(key=lambda item: (-float(sums[item]), item))
        given_rows = [row for row in first[user].tolist() if row >= 0]
        assert len(given_rows) == min(len(best_rows), 5)
        np.testing.assert_allclose(
            sorted(sums[given_rows]), sorted(sums[best_rows[: len(given_rows)]]), rtol=1e-4
        )
        assert not set(given_rows) & set(own)


def test_own_items_are_found_only_where_seen_ones_are_kept() -> None:
    model = weights_of()
    first = int(model.others[0, 0])
    world = world_with(model, [[0, first]])
    columns = weight_columns(model, world.items)
    rows = np.empty((1, ITEMS), np.int32)
    find_by_weights(histories_of(world, 1), columns, ITEMS, False, rows)
    assert first not in rows[0]
    find_by_weights(histories_of(world, 1), columns, ITEMS, True, rows)
    assert first in rows[0]


def test_an_item_too_far_back_to_be_named_gives_no_wrong_position() -> None:
    model = weights_of(decay=1.0)
    far = next(item for item in range(ITEMS) if model.others[item, 0] >= 0)
    other = int(model.others[far, 0])
    silent = next(item for item in range(ITEMS) if weight_of(model, item, other) == 0.0)
    world = World(ITEMS, users=1, ring=200)
    world.send(*likes(0, [far, *[silent] * 150]))
    histories = histories_of(world, 1)
    assert histories.n_history[0] == 151
    via = np.full((1, 1), -1, np.int8)
    rows = np.array([[other]], np.int32)
    columns = weight_columns(model, world.items)
    find_strongest(histories, columns, rows, np.ones((1, 1), np.bool_), via)
    assert via[0, 0] == -1
    near = np.zeros((1, 1), np.float32)
    weigh_rows(histories, columns, rows, np.ones(1, np.int64), near)
    assert near[0, 0] > 0.0


def test_items_that_the_catalogue_does_not_have_are_passed_over() -> None:
    model = weights_of(items=ITEMS + 5)
    world = World(ITEMS)
    columns = weight_columns(model, world.items)
    assert columns.rows[ITEMS:].tolist() == [-1] * 5
    assert columns.places.tolist() == list(range(ITEMS))
    nothing: WeightColumns = weight_columns(None, world.items)
    assert len(nothing.rows) == 0
    assert set(nothing.places.tolist()) == {-1}


def ranker_by_weights() -> Network:
    """Return a ranker that reads item weights alone."""
    zeros = {
        "first": np.zeros((1, 1), np.float32), "first_bias": np.zeros(1, np.float32),
        "second": np.zeros((1, 1), np.float32), "second_bias": np.zeros(1, np.float32),
    }  # fmt: skip
    last, cut = np.zeros(1, np.float32), np.zeros(len(CUT), np.float32)
    return Network(
        ["item_weights"], Weights(**zeros, last=last, skip=np.ones(1, np.float32), cut=cut)
    )


def test_what_speaks_for_an_item_brings_it_into_the_candidates_and_first_into_the_list() -> None:
    model = weights_of()
    past = [0, 5]
    world = world_with(model, [past])
    retrieval = Retrieval(0, 0, 0, 0, 0, {}, reserve=0, item_weights=6)
    plain = RecommendOptions(diversity=0.0, seen="exclude", retrieval=retrieval)
    world.recommender = Recommender(world.artifact, world.view, plain, ranker_by_weights())
    sums = sums_of(model, past)
    sums[past] = 0.0
    wanted = np.argsort(-sums, kind="stable")[: int((sums > 0.0).sum())]
    made = world.recommend([0], now=START + 100.0, k=5)
    assert made.rows[0, : len(wanted)].tolist() == wanted[:5].tolist()
    np.testing.assert_allclose(
        made.scores[0, : len(wanted)], np.log2(1.0 + 64.0 * sums[wanted[:5]]), rtol=1e-4
    )
    requests = world.asked([0], now=START + 100.0)
    recommender = world.recommender
    results = recommender.reader.search(requests)
    short = shortlist(
        results, requests, 1, recommender._plan, recommender.whole_columns, world.items, world.view
    )
    assert short.candidates.channels[0, 0] == CHANNEL.neighbours
    reason = made.because_rows[0, 0, 0]
    first = int(wanted[0])
    gains = {one: 0.9**age * weight_of(model, one, first) for age, one in enumerate(past[::-1])}
    assert gains[int(reason)] == max(gains.values()) > 0.0
    columns = world.recommender.columns(requests, short.cut.rows.astype(np.int64))
    np.testing.assert_array_equal(columns[:, :, C_ITEM_WEIGHTS], short.cut.weighed)


def test_without_item_weights_nothing_is_searched_and_the_column_is_zero() -> None:
    world = world_with(None, [[0, 5]])
    requests = world.asked([0], now=START + 100.0)
    assert world.recommender.reader.search(requests).weighed_rows.shape == (1, 0)
    rows = np.arange(ITEMS, dtype=np.int64)[None]
    assert not world.recommender.columns(requests, rows)[:, :, C_ITEM_WEIGHTS].any()
    assert COLUMNS[C_ITEM_WEIGHTS] == "item_weights"


def test_an_artifact_carries_item_weights_and_refuses_what_is_not_theirs(tmp_path: Path) -> None:
    model = weights_of()
    write_models(tmp_path, Models(item_weights=model))
    listed = {LAYOUT.item_weights: "0" * 64}
    manifest = msgspec.structs.replace(
        World().artifact.manifest, item_weights=model.info, files=listed
    )
    described = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    found = read_models(tmp_path, described).item_weights
    assert found is not None
    for name in ("hashes", "others", "weights"):
        np.testing.assert_array_equal(getattr(found, name), getattr(model, name))
    with pytest.raises(ArtifactError, match="describes item weights, and lists no file of it"):
        read_models(tmp_path, msgspec.structs.replace(manifest, files={}))
    other = msgspec.structs.replace(model.info, items=ITEMS + 1)
    with pytest.raises(ArtifactError, match=r"uint64 \(12,\) found, uint64 \(13,\) expected"):
        read_models(tmp_path, msgspec.structs.replace(manifest, item_weights=other))
    path = tmp_path / LAYOUT.item_weights
    safetensors.numpy.save_file({"weights": model.weights}, path)
    with pytest.raises(ArtifactError, match="tensors"):
        read_models(tmp_path, manifest)
    path.write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_models(tmp_path, manifest)


def test_numbers_that_a_kernel_must_not_read_are_refused() -> None:
    model = weights_of()
    beyond = np.full_like(model.others, ITEMS)
    with pytest.raises(ItemWeightsFileError, match="items that are not there"):
        replace(model, others=beyond)
    with pytest.raises(ItemWeightsFileError, match="not all are finite"):
        replace(model, weights=np.full_like(model.weights, math.nan))
    with pytest.raises(ValueError, match="decay is 2"):
        ItemWeightsInfo(1, 1, 2.0, 30.0, 0.1)
