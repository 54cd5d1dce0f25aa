"""RequestBatch: of whom something is asked, at what time and in which scene, as columns."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tracker.users.rows import UserRows
from tracker.users.states import UserStates


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """B users of whom something is asked, each at a time and in a scene.

    What answers reads their rows and writes none, but for rows of another artifact, which are
    carried over.

    Args:
        users: where what is kept of them is.
        slots: (B,) int64 rows in `users`, may repeat; -1 for a user of whom nothing is kept.
        now: (B,) float64, seconds.
        scenes: (B,) uint32 scene codes, 0 for none.
        hashes: (B,) uint64 hashes of the users' ids, for their attributes; None for none.

    Raises:
        ValueError: lengths differ.
    """

    users: UserRows
    slots: NDArray[np.int64]
    now: NDArray[np.float64]
    scenes: NDArray[np.uint32]
    hashes: NDArray[np.uint64] | None = None

    def __post_init__(self) -> None:
        """Check the lengths."""
        if not len(self.slots) == len(self.now) == len(self.scenes):
            raise ValueError(
                f"{len(self.slots)} slots, {len(self.now)} times and {len(self.scenes)} scenes;"
                " one of each a user is expected"
            )

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.slots)

    @property
    def states(self) -> UserStates:
        """The arena that `slots` are rows of."""
        return self.users.states

    def part(self, which: slice) -> "RequestBatch":
        """Return some of the users."""
        return replace(
            self,
            slots=self.slots[which],
            now=self.now[which],
            scenes=self.scenes[which],
            hashes=None if self.hashes is None else self.hashes[which],
        )
