"""Map of the catalogue in two dimensions: the main directions of the items' vectors."""

import faiss
import numpy as np

from tracker.items.vectors import Vectors

LEAST_ITEMS = 3
"""Items of a map at least; fewer have no directions."""

MOST_SAMPLED = 20_000
"""Items that a map is fitted on; of more, as many that stand evenly among them."""

OUTERMOST = 0.01
"""Share of the items at each end that may lie on the edge, so that a few odd ones do not press the
others together."""


def fit_map(vectors: Vectors, spread: Vectors | None = None) -> Vectors:
    """Return the linear map from vectors to places: (D + 1, 2) float32, the last row is added.

    The two directions are those in which the vectors vary most. Source: principal component
    analysis (Pearson, 1901), by FAISS. Their signs are fixed: the largest number is positive.

    Args:
        vectors: (N, D) float32 of the items that have a text.
        spread: (D,) what each component is multiplied by before it is compared with the others;
            by default 1. Whitened vectors vary alike in all directions: with the deviations that
            they had before, the directions are those of the encodings.
    """
    count, dim = vectors.shape
    projection = np.zeros((dim + 1, 2), np.float32)
    projection[-1] = 0.5
    if count < LEAST_ITEMS or dim < 2:
        return projection
    weights = np.ones(dim, np.float32) if spread is None else spread.astype(np.float32)
    sample = np.ascontiguousarray(vectors[:: -(-count // MOST_SAMPLED)] * weights)
    analysis = faiss.PCAMatrix(dim, 2)
    analysis.train(sample)
    main = faiss.vector_to_array(analysis.A).reshape(2, dim).T.astype(np.float64)  # (D, 2)
    main *= np.where(main[np.abs(main).argmax(axis=0), [0, 1]] < 0.0, -1.0, 1.0)
    if not np.isfinite(main).all():  # all vectors are the same
        return projection
    low, high = np.quantile(sample @ main, [OUTERMOST, 1.0 - OUTERMOST], axis=0)
    scale = np.where(high - low > 1e-6, 1.0 / np.maximum(high - low, 1e-6), 0.0)
    projection[:-1] = main * scale * weights[:, None]
    projection[-1] = np.where(scale > 0.0, -low * scale, 0.5)
    return projection


def map_places(projection: Vectors, vectors: Vectors) -> Vectors:
    """Return places (M, 2) from 0 to 1 of vectors (M, D); beyond the edges they lie on them."""
    places: Vectors = np.clip(vectors @ projection[:-1] + projection[-1], 0.0, 1.0).astype(
        np.float32
    )
    return places
