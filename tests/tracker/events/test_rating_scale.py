"""The scale of ratings, told by their distribution."""

from collections.abc import Sequence

import numpy as np
import pytest

from tracker.events.rating_scale import rating_scale


def spread(values: Sequence[float], count: int = 800) -> list[float]:
    return [values[n % len(values)] for n in range(count)]


HALVES = [n / 2 for n in range(1, 11)]
STARS = [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("ratings", "scale"),
    [
        (spread([0, 1]), (0, 1)),
        (spread([0.0, 0.25, 0.9]), (0, 1)),
        (spread([1]), (0, 1)),
        (spread([-1, 1]), (-1, 1)),
        (spread([-1, 0, 1]), (-1, 1)),
        (spread(STARS), (1, 5)),
        (spread(STARS, 5), (1, 5)),
        ([1.0], (1, 5)),
        ([3.0], (1, 5)),
        ([5.0], (1, 5)),
        (spread([4, 5]), (1, 5)),
        (spread(HALVES), (0.5, 5)),
        ([*spread(STARS, 1000), *[0.5] * 14], (0.5, 5)),
        (spread([0, *STARS]), (0, 5)),
        (spread([1, 2]), (1, 2)),
        (spread([0, 1, 2]), (0, 2)),
        (spread([1, 2, 3]), (1, 3)),
        (spread([-2, -1, 0, 1, 2]), (-2, 2)),
        (spread(range(1, 8)), (1, 7)),
        (spread(range(1, 11)), (1, 10)),
        (spread(range(11)), (0, 10)),
        ([*spread(range(1, 11), 5000), 0], (0, 10)),
        ([7.0, 8.0], (0, 10)),
        (spread(range(-10, 11)), (-10, 10)),
        (spread(range(0, 21)), (0, 20)),
        (spread(range(0, 101, 5)), (0, 100)),
        (spread(range(0, 1001, 5)), (0, 990)),
    ],
)
def test_the_scale_is_the_shortest_usual_one_that_holds_the_ratings(
    ratings: list[float], scale: tuple[float, float]
) -> None:
    chosen = rating_scale(np.array(ratings, np.float32))
    assert (chosen.low, chosen.high) == scale
    assert chosen.note.startswith(f"ratings: scale {scale[0]:g} to {scale[1]:g}, from the distrib")


@pytest.mark.parametrize(
    ("mistake", "count"),
    [(50.0, 40), (50.0, 800), (6.0, 800), (1e9, 5000), (-3.0, 800), (0.0, 800), (0.0, 5000)],
)
def test_one_mistake_does_not_set_the_scale(mistake: float, count: int) -> None:
    chosen = rating_scale(np.array([*spread(STARS, count - 1), mistake], np.float32))
    assert (chosen.low, chosen.high, chosen.beyond) == (1.0, 5.0, 1)
    assert f"1 of {count:,} (" in chosen.note
    assert f"lie outside ({mistake:g}) and are cut" in chosen.note


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_minus_one_says_not_rated_where_the_scale_is_positive(share: float) -> None:
    count = int(1000 * share)
    chosen = rating_scale(np.array([*spread(STARS, 1000 - count), *[-1.0] * count], np.float32))
    assert (chosen.low, chosen.high, chosen.beyond, chosen.unrated) == (1.0, 5.0, 0, count)
    assert f"{count:,} of -1 are taken as not rated" in chosen.note


def test_the_scale_before_stays_while_the_ratings_lie_in_it() -> None:
    ratings = np.array(spread(STARS), np.float32)
    assert rating_scale(ratings, (0.0, 10.0))[:2] == (0.0, 10.0)
    assert rating_scale(ratings, (0.0, 1.0))[:2] == (1.0, 5.0)
    assert rating_scale(np.array(spread([0, 1])), (1.0, 5.0))[:2] == (0.0, 1.0)
    assert rating_scale(np.array([np.nan]), (0.0, 10.0))[:2] == (0.0, 10.0)
    assert rating_scale(np.array([]))[:2] == (1.0, 5.0)
    assert rating_scale(np.array([])).note == ""


def test_a_fixed_scale_stays_and_more_than_a_few_ratings_outside_are_a_warning() -> None:
    chosen = rating_scale(np.array(spread([1, 3, 5, 7])), None, (1.0, 5.0))
    assert chosen[:3] == (1.0, 5.0, 200)
    assert "200 of 800 (25.0%) lie outside (7) and are cut: more than a few" in chosen.note
    kept = rating_scale(np.array([-1.0, 1.0]), None, (-1.0, 1.0))
    assert (kept.beyond, kept.unrated) == (0, 0)
