"""Description of the user encoder in a manifest, and attributes of users; free of torch."""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray


class TowerInfo(msgspec.Struct, frozen=True):
    """Description of a tower, in the manifest.

    `code` stands for the encoder's weights; a user's row names the one its state is of. `width` is
    that of a user's state, `dim` that of the vectors, `items` are those with a vector of their
    own, `users` those whose attributes are known. `scenes` says whether scene attention was
    trained. `index_kind` and `recall_at_10` are of the index of the items' vectors. `fitted` are
    the figures of its training: epochs, learning rate, validation.
    """

    code: int
    cell: str
    dim: int
    width: int
    items: int
    users: int
    scenes: bool
    index_kind: str
    recall_at_10: float
    fitted: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class UserAttributes:
    """Attributes of users, by the hashes of their ids.

    `hashes` (U,) uint64 of their ids, ascending; `rows` (U, A) int32 of the encoder's attributes,
    0 for none.
    """

    hashes: NDArray[np.uint64]
    rows: NDArray[np.int32]

    @staticmethod
    def none() -> "UserAttributes":
        """Return those of nobody."""
        return UserAttributes(np.zeros(0, np.uint64), np.zeros((0, 0), np.int32))

    def of(self, users: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the rows (B, A) of users given by hashes (B,), 0 for those not known."""
        rows = np.zeros((len(users), self.rows.shape[1]), np.int64)
        if len(self.hashes):
            place = np.searchsorted(self.hashes, users).clip(max=len(self.hashes) - 1)
            is_user = self.hashes[place] == users
            rows[is_user] = self.rows[place[is_user]]
        return rows
