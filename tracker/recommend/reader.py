"""Readings for a batch of requests: histories, queries, and the rows that the indexes find."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracker.encoder.interests import SceneQueries
from tracker.users.readings import Histories


@dataclass(frozen=True, slots=True)
class SearchResults:
    """The results of both indexes for B users, with the queries behind them.

    `owners` and `masses` (B, searches) of `interest_queries`, and `rows` (Q, K) int64 of each
    query; `encoder_queries` (B, E) float32 of the user encoder, and `encoder_rows` (B, K) int64
    theirs; `attended` are the users' interests after scene attention, None if not asked for.
    """

    histories: Histories
    owners: NDArray[np.int64]
    masses: NDArray[np.float32]
    rows: NDArray[np.int64]
    encoder_queries: NDArray[np.float32]
    encoder_rows: NDArray[np.int64]
    attended: SceneQueries | None

    def part(self, users: slice) -> "SearchResults":
        """Return some of the users."""
        return SearchResults(
            self.histories.part(users),
            self.owners[users],
            self.masses[users],
            self.rows,
            self.encoder_queries[users],
            self.encoder_rows[users],
            None,
        )
