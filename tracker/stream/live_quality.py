"""Live quality: what users did after their lists, and what the lists were made of.

Nothing of it is stored: after a restart or a move of a partition, it is counted from the next list
on. It is an observation, not a comparison: users also choose an item because it was shown.
"""

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.kernels.native import native
from tracker.kernels.row_bytes import Slots
from tracker.recommend.channels import CHANNELS
from tracker.recommend.lists import RecommendedBatch
from tracker.users.columns import APPLIED
from tracker.users.states import UserStates

COVERAGE_SECONDS = 3600.0
"""The catalogue's coverage is that of the current and the last whole window of this length."""

PERSONAL = np.array([name not in ("trend", "default") for name in CHANNELS])
"""Whether a channel's items depend on the user, by channel."""


@native
def judge(
    slots: NDArray[np.int64],
    rows: NDArray[np.int64],
    weights: NDArray[np.float32],
    outcomes: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    lists: NDArray[np.int32],
    list_hashes: NDArray[np.uint64],
    out: NDArray[np.int64],
) -> None:
    """Count, for each user's first positive event after the last list, whether its item was in it.

    Args:
        slots: (N,) the users' slots, of N events in order.
        rows: (N,) catalogue rows of the items, -1 for none.
        weights: (N,) of the events.
        outcomes: (N,) of the events; those that were not applied are left out.
        hashes: (S,) hash of the last list in each user's state.
        lists: (S, K) catalogue rows of the last lists.
        list_hashes: (S,) hash of each of `lists`; 0 for none, and set to 0 when it is judged.
        out: (2,) events whose item was not, and was, in the list; added to.
    """
    for n in range(len(slots)):
        slot = slots[n]
        if weights[n] <= 0.0 or outcomes[n] != APPLIED or rows[n] < 0:
            continue
        if slot >= len(list_hashes):  # of a user who came after the last lists
            continue
        if list_hashes[slot] == 0 or list_hashes[slot] != hashes[slot]:
            continue
        is_hit = 0
        for row in lists[slot]:
            if row == rows[n]:
                is_hit = 1
        out[is_hit] += 1
        list_hashes[slot] = 0


class LastLists:
    """The last lists of the users in one partition's arena, until their next event.

    A list belongs to a slot as long as the user's state there has the list's hash, so a slot that
    went to another user is told apart.
    """

    def __init__(self) -> None:
        self._sequence = -1
        self._lists = np.zeros((0, 0), np.int32)
        self._hashes = np.zeros(0, np.uint64)

    def keep(
        self, states: UserStates, slots: Slots, batch: RecommendedBatch, sequence: int
    ) -> None:
        """Keep the lists of users; those of another artifact are forgotten.

        Args:
            states: the arena.
            slots: (B,) the users.
            batch: their lists.
            sequence: number of the artifact.
        """
        if self._sequence != sequence or self._lists.shape[1] != batch.rows.shape[1]:
            self._sequence = sequence
            self._lists = np.zeros((states.capacity, batch.rows.shape[1]), np.int32)
            self._hashes = np.zeros(states.capacity, np.uint64)
        more = states.capacity - len(self._hashes)
        if more > 0:
            self._lists = np.pad(self._lists, ((0, more), (0, 0)))
            self._hashes = np.pad(self._hashes, (0, more))
        self._lists[slots] = batch.rows
        self._hashes[slots] = batch.list_hash

    def judge(
        self,
        states: UserStates,
        events: EventBatch,
        outcomes: NDArray[np.uint8],
        sequence: int,
    ) -> NDArray[np.int64]:
        """Return how many next positive events (2,) were not, and were, of the last list.

        Args:
            states: the arena.
            events: N events in order, with the rows of their items.
            outcomes: (N,) of the events.
            sequence: number of the artifact that the rows are of.
        """
        out = np.zeros(2, np.int64)
        if sequence == self._sequence:
            judge(
                events.slots, events.rows, events.weights, outcomes,
                states.head["list_hash"], self._lists, self._hashes, out,
            )  # fmt: skip
        return out


class Coverage:
    """The share of a catalogue that stood in lists lately.

    Args:
        clock: monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sequence = -1
        self._window = 0
        self._in_lists = np.zeros((2, 0), np.bool_)  # the last window, and the current one

    def add(self, rows: NDArray[np.int64], sequence: int, items: int) -> None:
        """Note the rows of lists, -1 for none.

        Args:
            rows: catalogue rows, of any shape.
            sequence: number of the artifact.
            items: number of its items.
        """
        with self._lock:
            if sequence != self._sequence:
                self._sequence = sequence
                # Row -1 of an empty place is written to one place more than there are items.
                self._in_lists = np.zeros((2, items + 1), np.bool_)
            self._turn()
            self._in_lists[1, rows] = True

    def share(self) -> float:
        """Return the share of items from 0 to 1; 0 before the first list."""
        with self._lock:
            self._turn()
            items = self._in_lists.shape[1] - 1
            return float(self._in_lists[:, :-1].any(axis=0).sum()) / items if items > 0 else 0.0

    def _turn(self) -> None:
        window = int(self._clock() / COVERAGE_SECONDS)
        if window != self._window:
            self._in_lists[0] = self._in_lists[1] if window == self._window + 1 else False
            self._in_lists[1] = False
            self._window = window


@native
def count_channels(
    channels: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Count the items of lists (B, K) by channel.

    Returns:
        the counts, for all of CHANNELS; and how many lists have no item that depends on the user.

    >>> trend = CHANNELS.index("trend")
    >>> counts, impersonal = count_channels(np.array([[trend, 0]], np.uint8), np.array([[3, -1]]))
    >>> int(counts[trend]), int(counts.sum()), impersonal
    (1, 1, 1)
    """
    counts = np.zeros(len(PERSONAL), np.int64)
    impersonal = 0
    for b in range(rows.shape[0]):
        is_personal = False
        for i in range(rows.shape[1]):
            if rows[b, i] >= 0:
                counts[channels[b, i]] += 1
                is_personal |= PERSONAL[channels[b, i]]
        impersonal += not is_personal
    return counts, impersonal
