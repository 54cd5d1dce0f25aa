"""Columns that kernels take: users' rows, the catalogue, a chunk of events, and its outcomes."""

from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.kernels.row_bytes import Slots
from tracker.users.seen import SeenSets
from tracker.users.states import UserStates

Array = NDArray[Any]


class Catalogue(Protocol):
    """The part of an ItemVectors that is used here: vectors, and the table from hash to row."""

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Unit vectors (N, D) float32 by row."""

    @property
    def table_hash(self) -> NDArray[np.uint64]:
        """Hashes of the open-addressing table."""

    @property
    def table_row(self) -> NDArray[np.int32]:
        """Rows of the open-addressing table."""


class RowColumns(NamedTuple):
    """The columns of a UserStates that events change; see there."""

    head: Array
    masses: Array
    sums: Array
    negative: Array
    pending: Array
    interest_heads: Array
    interest_means: Array
    ring: Array


class Rules(NamedTuple):
    """The numbers of an InterestConfig that kernels use, and the artifact's stamps."""

    half_lives: Array
    negative_half_life: float
    interest_half_life: float
    interest_threshold: float
    ring_evict: int
    seen_capacity: int
    basis: np.uint64
    sequence: int


class HalfLives(NamedTuple):
    """The half-lives of the decayed sums (H,) float64, and that of the negative one: seconds."""

    sums: Array
    negative: float


class RequestColumns(NamedTuple):
    """The columns of a RequestBatch that kernels use; see there."""

    now: Array
    slots: Array
    scenes: Array


class Content(NamedTuple):
    """The vectors of the catalogue, and its table from hash to row."""

    table_hash: Array
    table_row: Array
    vectors: Array


class SeenColumns(NamedTuple):
    """The columns of a SeenSets, and the row of each user in them, -1 for none."""

    bits: Array
    counts: Array
    active: Array
    slots: Array


class EventColumns(NamedTuple):
    """The columns of an EventBatch; see there."""

    slots: Array
    items: Array
    rows: Array
    times: Array
    weights: Array
    values: Array
    kinds: Array
    scenes: Array
    event_ids: Array
    retracts: Array
    offsets: Array


def rows_of(states: UserStates) -> RowColumns:
    """Return an arena's columns."""
    return RowColumns(
        states.head,
        states.masses,
        states.sums,
        states.negative,
        states.pending,
        states.interest_heads,
        states.interest_means,
        states.ring,
    )


def half_lives_of(states: UserStates) -> HalfLives:
    """Return the half-lives of an arena's configuration."""
    config = states.config
    return HalfLives(_array_of(config.half_lives_seconds), float(config.negative_half_life_seconds))


@cache
def _array_of(half_lives: tuple[float, ...]) -> NDArray[np.float64]:
    """Return half-lives as an array, which is only read."""
    return np.array(half_lives, np.float64)


def rules_of(states: UserStates, basis: int, sequence: int) -> Rules:
    """Return the rules of an arena's configuration, with the stamps of an artifact."""
    config = states.config
    return Rules(
        np.array(config.half_lives_seconds, np.float64),
        float(config.negative_half_life_seconds),
        float(config.slot_half_life_seconds),
        float(config.slot_threshold),
        config.ring_evict,
        config.seen_capacity,
        np.uint64(basis),
        sequence,
    )


def content_of(states: UserStates, catalogue: Catalogue) -> Content:
    """Return a catalogue's vectors.

    Raises:
        ValueError: their dim is not the states'.
    """
    if catalogue.vectors.shape[1] != states.config.dim:
        raise ValueError(
            f"the catalogue's vectors have dim {catalogue.vectors.shape[1]}, the states"
            f" {states.config.dim}"
        )
    return Content(catalogue.table_hash, catalogue.table_row, catalogue.vectors)


def seen_of(seen: SeenSets, seen_slots: Slots) -> SeenColumns:
    """Return the columns of seen sets, with the row of each user in them."""
    return SeenColumns(seen.bits, seen.counts, seen.active, seen_slots)


def events_of(events: EventBatch) -> EventColumns:
    """Return a batch's columns."""
    return EventColumns(
        events.slots,
        events.items,
        events.rows,
        events.times,
        events.weights,
        events.values,
        events.kinds,
        events.scenes,
        events.event_ids,
        events.retracts,
        events.offsets,
    )


APPLIED = 0
"""The event is in the state."""

DUPLICATE = 1
"""Its event id is in the ring: ignored."""

RETRACTED = 2
"""A retraction that took its event out."""

RETRACTION_WAITS = 3
"""A retraction whose event is not known; it waits for it in a bounded set."""

TOO_OLD = 4
"""A retraction of an event that the ring no longer holds: ignored."""

RETRACTED_ON_ARRIVAL = 5
"""An event whose retraction had come first: kept in the ring, not counted."""

ALREADY_RETRACTED = 6
"""A repeated retraction: ignored."""

NOTHING_TO_TAKE_BACK = 7
"""A retraction without an id, and no such event in the ring: ignored."""

JOINED = 8
"""Another user's state that joined this one's."""

NOTHING_TO_JOIN = 9
"""Another user of whom nothing is kept here, or who had joined before."""
