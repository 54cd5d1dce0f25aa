"""The map of a catalogue: main directions, places from 0 to 1, and what has no directions."""

import numpy as np
import pytest

from tracker.items.item_map import fit_map, map_places


def cloud(items: int, dim: int = 12) -> np.ndarray:
    """Return vectors that vary most along the axes 3 and 7."""
    vectors = np.random.default_rng(0).standard_normal((items, dim)).astype(np.float32)
    vectors[:, 3] *= 9.0
    vectors[:, 7] *= 5.0
    return vectors


@pytest.mark.xdist_group("slow to load")  # in one process only
def test_the_directions_are_those_of_another_implementation() -> None:
    from sklearn.decomposition import PCA

    vectors = cloud(500)
    projection = fit_map(vectors)
    directions = projection[:-1] / np.linalg.norm(projection[:-1], axis=0)
    expected = PCA(2, svd_solver="full").fit(vectors).components_.T
    np.testing.assert_allclose(np.abs((directions * expected).sum(axis=0)), 1.0, atol=1e-4)
    assert (directions[[3, 7], [0, 1]] > 0.9).all()  # signs are fixed


def test_places_fill_the_map_and_the_outermost_lie_on_its_edge() -> None:
    vectors = cloud(500)
    places = map_places(fit_map(vectors), vectors)
    assert places.shape == (500, 2)
    assert (places.min(), places.max()) == (0.0, 1.0)
    inside = ((places > 0.0) & (places < 1.0)).mean(axis=0)
    assert inside == pytest.approx([0.98, 0.98], abs=0.005)
    order = np.argsort(vectors[:, 3])[10:-10]
    assert np.corrcoef(places[order, 0], vectors[order, 3])[0, 1] > 0.99


def test_stretched_directions_count_as_they_did_before() -> None:
    vectors = cloud(500)
    spread = vectors.std(axis=0)
    white = vectors / spread
    directions = fit_map(white, spread)[:-1] * spread[:, None]
    assert np.abs(directions).argmax(axis=0).tolist() == [3, 7]
    places = map_places(fit_map(white, spread), white)
    expected = map_places(fit_map(vectors), vectors)
    np.testing.assert_allclose(places, expected, atol=1e-3)


@pytest.mark.parametrize("items", [1, 2, 3, 5])
def test_few_items_have_places_too(items: int) -> None:
    places = map_places(fit_map(cloud(items)), cloud(items))
    assert np.isfinite(places).all()
    assert ((places >= 0.0) & (places <= 1.0)).all()


def test_what_does_not_vary_lies_in_the_middle() -> None:
    alike = np.ones((20, 4), np.float32)
    np.testing.assert_allclose(map_places(fit_map(alike), alike), 0.5, atol=1e-6)
    line = np.ones((20, 4), np.float32)
    line[:, 2] = np.arange(20.0)
    places = map_places(fit_map(line), line)
    assert np.isfinite(places).all()
    assert places[:, 0].tolist() == sorted(places[:, 0].tolist())
