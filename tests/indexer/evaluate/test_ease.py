"""EASE against its closed form, computed without any grouping."""

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.evaluate.ease import co_counts, ease_weights

# A checkerboard: users 0..9 choose items of their own parity, each all of it but one.
PARITY = [(u, i) for u in range(10) for i in range(10) if (u + i) % 2 == 0 and i != u]

# Items 0, 1 and 2 are of user 0 alone, 3 and 6 of users 0 and 1, of whom one chose item 6 twice.
ALIKE = [
    (0, 0), (0, 1), (0, 2), (0, 3), (0, 6), (1, 3), (1, 6), (1, 6), (1, 4),
    (2, 4), (2, 5), (3, 5), (3, 7),
]  # fmt: skip


def closed_form(
    users: NDArray[np.int64], items: NDArray[np.int64], regularisation: float
) -> NDArray[np.float64]:
    table = np.zeros((users.max() + 1, items.max() + 1))
    table[users, items] = 1.0
    inverse = np.linalg.inv(table.T @ table + regularisation * np.eye(table.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize("chosen", [PARITY, ALIKE, ALIKE[:3], ALIKE[:1]])
@pytest.mark.parametrize("regularisation", [0.5, 300.0])
def test_weights_are_the_closed_form_also_of_items_that_the_same_users_chose(
    chosen: list[tuple[int, int]], regularisation: float
) -> None:
    users, items = np.array(chosen).T
    found = ease_weights(co_counts(items, users), regularisation)
    assert found.dtype == np.float32
    expected = closed_form(users, items, regularisation)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


def test_without_events_there_are_no_weights() -> None:
    nothing = np.zeros(0, np.int64)
    assert ease_weights(co_counts(nothing, nothing), 1.0).shape == (0, 0)
