"""EASE in closed form: item-to-item weights, over groups of items with the same users."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tracker.kernels.native import native

Array = NDArray[Any]
Integers = NDArray[np.int64]

REGULARISATIONS = (10.0, 30.0, 100.0, 300.0, 1000.0)
"""Weights of L2 that are tried; without validation events the middle one is taken."""

DECAYS = (1.0, 0.95, 0.9, 0.8, 0.6)
"""Weights of an event against the one after it that are tried; else the first is taken."""

MIDDLE = REGULARISATIONS[len(REGULARISATIONS) // 2]

MOST_CHOICE_ITEMS = 2000
"""Items that a choice is made with, those with the most events: the time grows with their cube."""


class CoCounts(NamedTuple):
    """Numbers of users who chose two items both, over groups of items with the very same users.

    `groups` (I,) are the groups of the items, `sizes` (G,) float64 how many items each has, and
    `counts` (G, G) float32 how many users chose both, on the diagonal how many chose it.
    """

    groups: Integers
    sizes: NDArray[np.float64]
    counts: NDArray[np.float32]


def co_counts(codes: Integers, users: Integers) -> CoCounts:
    """Count the users of items and of pairs of items.

    Args:
        codes: (E,) of the items of events, 0 to I - 1, each at least once.
        users: (E,) of the events; repeated choices count once.
    """
    groups = _alike(codes, users)
    sizes = np.bincount(groups).astype(np.float64)
    counts = np.zeros((len(sizes), len(sizes)), np.float32)
    pairs = np.unique(np.stack([users, groups[codes]], axis=1), axis=0)
    starts = np.flatnonzero(np.r_[True, np.diff(pairs[:, 0]) != 0]) if len(pairs) else pairs[:, 0]
    _count_pairs(np.ascontiguousarray(pairs[:, 1]), np.r_[starts, len(pairs)], counts)
    return CoCounts(groups, sizes, counts)


def ease_weights(counted: CoCounts, regularisation: float) -> NDArray[np.float32]:
    """Return the weights (I, I) of items for each other, 0 on the diagonal.

    Source: Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", eq. 8. We differ in
    how the inverse is found:

    1. Items that the very same users chose are alike: those of one user in particular, often a
       third of all. They form groups.
    2. Over what is common to a group the regularised Gram matrix is one of groups, each scaled by
       the root of its size; over what tells its items apart it is the regularisation alone.
    3. So the inverse of the whole matrix follows from that of the groups.
    4. Numbers of single precision do: the regularisation keeps the matrix far from singular, and
       ranks differ in nothing that a metric shows.

    Args:
        counted: the users of the items; 1 was done there.
        regularisation: weight of L2, above 0.
    """
    groups, sizes, counts = counted
    scales = np.sqrt(sizes).astype(np.float32)
    gram = counts * (scales * scales[:, None])  # 2. Invert the matrix of groups.
    gram[np.diag_indices(len(sizes))] += regularisation
    factor = torch.linalg.cholesky(torch.from_numpy(gram))
    del gram  # each of these is the largest thing in memory
    inverse = torch.cholesky_inverse(factor).numpy()
    del factor
    inverse /= scales * scales[:, None]  # 3. Expand it to items.
    own = np.diag(inverse).astype(np.float64)
    inverse[np.diag_indices(len(sizes))] -= 1.0 / (regularisation * sizes)
    inverse /= -(own + (1.0 - 1.0 / sizes) / regularisation).astype(np.float32)
    weights: NDArray[np.float32] = inverse[np.ix_(groups, groups)]
    np.fill_diagonal(weights, 0.0)
    return weights


@native
def _count_pairs(members: Array, starts: Array, counts: Array) -> None:
    """Add 1 for each two of a user's groups, `members[starts[u] : starts[u + 1]]`."""
    for u in range(len(starts) - 1):
        for i in range(starts[u], starts[u + 1]):
            for j in range(starts[u], starts[u + 1]):
                counts[members[i], members[j]] += np.float32(1.0)


def _alike(codes: Integers, users: Integers) -> Integers:
    """Return a group for each item (I,), the same for items that the very same users chose."""
    pairs = np.unique(np.stack([codes, users], axis=1), axis=0)
    starts = np.searchsorted(pairs[:, 0], np.arange(pairs[:, 0].max(initial=-1) + 2))
    groups: dict[bytes, int] = {}
    user_sets = (pairs[a:b, 1].tobytes() for a, b in pairwise(starts.tolist()))
    return np.array([groups.setdefault(one, len(groups)) for one in user_sets], np.int64)
