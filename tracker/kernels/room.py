"""Room: memory for rows that are still to come, so that an arena grows without a copy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Room:
    """The room behind the columns of an arena.

    At the first growth room is made for the most rows there can be. The system takes memory for it
    only as rows come into use, so later growth costs nothing: no copy, and no memory for two arenas
    at a time.

    Args:
        most: rows that the arena can have; more only copies again.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._columns: dict[str, Array] = {}

    def longer(self, name: str, column: Array, rows: int) -> Array:
        """Return a column with room for `rows` rows; those there keep their places, new ones are 0.

        Args:
            name: of the column.
            column: (C, ...) the last answer for that name, or an array of its own.
            rows: at least C.
        """
        room = self._columns.get(name)
        if room is None or column.base is not room or len(room) < rows:
            shape = column.shape[1:]
            try:
                room = np.zeros((max(rows, self._most), *shape), column.dtype)
            except MemoryError:  # the system promises no more than it has: grow step by step
                self._most = 0
                room = np.zeros((rows, *shape), column.dtype)
            room[: len(column)] = column
            self._columns[name] = room
        return room[:rows]
