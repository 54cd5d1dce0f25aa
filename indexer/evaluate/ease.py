"""EASE in closed form: item-to-item weights, over groups of items with the same users."""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def ease_weights(codes: Integers, users: Integers, regularisation: float) -> NDArray[np.float32]:
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
        codes: (E,) of the items of events, 0 to I - 1, each at least once.
        users: (E,) of the events; repeated choices count once.
        regularisation: weight of L2, above 0.
    """
    groups = _alike(codes, users)  # 1. Group items with the same users.
    sizes = np.bincount(groups).astype(np.float64)
    gram = np.zeros((len(sizes), len(sizes)), np.float32)  # 2. Invert the matrix of groups.
    order = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(users[order]) != 0]) if len(order) else order
    for part in np.split(order, starts[1:]):
        present = np.unique(groups[codes[part]])
        gram[np.ix_(present, present)] += 1.0
    scales = np.sqrt(sizes).astype(np.float32)
    gram *= scales * scales[:, None]
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


def _alike(codes: Integers, users: Integers) -> Integers:
    """Return a group for each item (I,), the same for items that the very same users chose."""
    pairs = np.unique(np.stack([codes, users], axis=1), axis=0)
    starts = np.searchsorted(pairs[:, 0], np.arange(pairs[:, 0].max(initial=-1) + 2))
    groups: dict[bytes, int] = {}
    user_sets = (pairs[a:b, 1].tobytes() for a, b in pairwise(starts.tolist()))
    return np.array([groups.setdefault(one, len(groups)) for one in user_sets], np.int64)
