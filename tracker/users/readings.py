"""Readings of users' rows at a time: interests, sums of vectors, and the recent history."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import ItemVectors, RowTable, row_of_hash
from tracker.kernels.arithmetic import copy_row, decay, whole
from tracker.kernels.native import native
from tracker.kernels.row_bytes import Slots
from tracker.users.interests import interest_strength, unit_mean
from tracker.users.rows import RequestBatch
from tracker.users.states import RING_RETRACTED, UserStates

Array = NDArray[Any]


@native
def _interest_strengths(
    slots: Slots,
    now: Array,
    head: Array,
    interest_heads: Array,
    half_life_seconds: float,
    strengths: Array,
    changes: Array,
) -> None:
    for i in range(slots.shape[0]):
        slot = slots[i]
        for s in range(whole(head[slot]["n_slots"])):
            strength, change = interest_strength(interest_heads[slot, s], now[i], half_life_seconds)
            strengths[i, s] = strength
            changes[i, s] = change


def interest_strengths(states: UserStates, slots: Slots, now: Array) -> tuple[Array, Array]:
    """Return the strength of each interest at `now` (B,), and its change since a day before.

    Returns:
        decayed masses (B, S) float32, 0 for interests not in use, and changes (B, S) float32; see
        `interests.interest_strength` for what is taken for the day before.
    """
    strengths = np.zeros((len(slots), states.config.slots), np.float32)
    changes = np.zeros_like(strengths)
    half_life = states.config.slot_half_life_seconds
    _interest_strengths(
        slots, now, states.head, states.interest_heads, half_life, strengths, changes
    )
    return strengths, changes


@native
def _interest_vectors(slots: Slots, head: Array, interest_means: Array, out: Array) -> None:
    for i in range(slots.shape[0]):
        for s in range(whole(head[slots[i]]["n_slots"])):
            unit_mean(interest_means[slots[i], s], out[i, s])


def interest_vectors(states: UserStates, slots: Slots) -> Array:
    """Return the interests' means as unit vectors (B, S, D) float32; zeros if not in use."""
    out = np.zeros((len(slots), *states.interest_means.shape[1:]), np.float32)
    _interest_vectors(slots, states.head, states.interest_means, out)
    return out


@native
def _sum_masses(
    slots: Slots, now: Array, head: Array, masses: Array, half_lives: Array, out: Array
) -> None:
    for i in range(slots.shape[0]):
        age = now[i] - head[slots[i]]["ref_time"]
        for h in range(masses.shape[1]):
            out[i, h] = masses[slots[i], h] * decay(age, half_lives[h])


def sum_masses(states: UserStates, slots: Slots, now: Array) -> Array:
    """Return the masses (B, H) float32 as decayed at `now` (B,)."""
    out = np.zeros((len(slots), states.masses.shape[1]), np.float32)
    half_lives = np.array(states.config.half_lives_seconds)
    _sum_masses(slots, now, states.head, states.masses, half_lives, out)
    return out


INTERESTS = 3
"""Interests named in a recommendation."""


class Histories(NamedTuple):
    """Histories and interests of B users, read before candidates are gathered.

    `ring_rows` (B, R) int32 are the catalogue rows of ring entries (-1: unknown item, retracted, or
    beyond the ring); `history` (B, R) int32 the places in the ring of positive events of known
    items, latest first, and `n_history` (B,) how many; `strengths` (B, S) float32 the decayed
    masses of interests, `changes` their change since a day before, `interests` (B, S, D) float32
    their unit means, `order` (B, S) int64 the interests by strength, strongest first, ties by
    place.
    """

    ring_rows: NDArray[np.int32]
    history: NDArray[np.int32]
    n_history: NDArray[np.int64]
    strengths: NDArray[np.float32]
    changes: NDArray[np.float32]
    interests: NDArray[np.float32]
    order: NDArray[np.int64]

    def part(self, users: slice) -> "Histories":
        """Return some of the users."""
        return Histories(
            self.ring_rows[users],
            self.history[users],
            self.n_history[users],
            self.strengths[users],
            self.changes[users],
            self.interests[users],
            self.order[users],
        )


@native
def _read_histories(
    slots: Slots, now: Array, head: Array, ring: Array, interest_heads: Array,
    interest_means: Array, half_life_seconds: float, table: RowTable, out: Histories,
) -> None:  # fmt: skip
    """Fill `Histories`; what is not in use stays as it is."""
    ring_rows, history, n_history, strengths, changes, means, order = out
    for b in range(len(slots)):
        u = slots[b]
        n = 0
        if u >= 0:
            for r in range(whole(head[u]["n_ring"]) - 1, -1, -1):
                entry = ring[u, r]
                if entry["flags"] & RING_RETRACTED != 0:
                    continue
                row = row_of_hash(table.hashes, table.rows, entry["item"])
                ring_rows[b, r] = row
                if row >= 0 and entry["weight"] > 0:
                    history[b, n] = r
                    n += 1
        n_history[b] = n
        if u >= 0:
            for s in range(whole(head[u]["n_slots"])):
                strength, change = interest_strength(
                    interest_heads[u, s], now[b], half_life_seconds
                )
                strengths[b, s] = strength
                changes[b, s] = change
                unit_mean(interest_means[u, s], means[b, s])
        for s in range(order.shape[1]):
            place = s
            while place > 0 and strengths[b, order[b, place - 1]] < strengths[b, s]:
                order[b, place] = order[b, place - 1]
                place -= 1
            order[b, place] = s


def read_histories(requests: RequestBatch, items: ItemVectors) -> Histories:
    """Read the rows of B users at the times of their requests."""
    states, config = requests.states, requests.states.config
    users, width, interests = len(requests), states.ring.shape[1], config.slots
    ring_rows = np.empty((users, width), np.int32)
    ring_rows.fill(-1)
    histories = Histories(
        ring_rows,
        np.zeros((users, width), np.int32),
        np.zeros(users, np.int64),
        np.zeros((users, interests), np.float32),
        np.zeros((users, interests), np.float32),
        np.zeros((users, interests, config.dim), np.float32),
        np.empty((users, interests), np.int64),
    )
    _read_histories(
        requests.slots, requests.now, states.head, states.ring, states.interest_heads,
        states.interest_means, config.slot_half_life_seconds, items.table, histories,
    )  # fmt: skip
    return histories


def interest_queries(
    histories: Histories, searches: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Return a query for each of up to `searches` strongest interests per user.

    Returns:
        queries (Q, D) float32 unit; owners (B, searches) int64, the query of each user and rank or
        -1; masses (B, searches) float32, the interests' strengths.
    """
    users, width = histories.order.shape
    ranks = min(searches, width)
    owners, masses = np.empty((users, ranks), np.int64), np.empty((users, ranks), np.float32)
    queries = np.empty((users * ranks, histories.interests.shape[2]), np.float32)
    count = _make_queries(
        histories.order, histories.strengths, histories.interests, queries, owners, masses
    )
    return queries[:count], owners, masses


@native
def _make_queries(
    order: Array, strengths: Array, interests: Array, queries: Array, owners: Array, masses: Array
) -> int:
    """Fill what `interest_queries` returns; return the number of queries."""
    count = 0
    for b in range(owners.shape[0]):
        for rank in range(owners.shape[1]):
            interest = order[b, rank]
            masses[b, rank] = strengths[b, interest]
            owners[b, rank] = -1
            if masses[b, rank] > 0.0:
                copy_row(queries[count], interests[b, interest])
                owners[b, rank] = count
                count += 1
    return count


def shares_of(
    strengths: NDArray[np.float32], changes: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return each interest's share of the whole, and the change of the share since a day before.

    A user's changes add up to 0, or to 1 if there was nothing a day before.

    Args:
        strengths: (B, S) decayed masses of interests.
        changes: (B, S) their changes since a day before, see `interest_strengths`.
    """
    shares, moves = np.empty_like(strengths), np.empty_like(strengths)
    _share_out(strengths, changes, shares, moves)
    return shares, moves


@native
def _share_out(strengths: Array, changes: Array, shares: Array, moves: Array) -> None:
    """Fill what `shares_of` returns."""
    least, zero = np.float32(1e-30), np.float32(0.0)
    for b in range(len(strengths)):
        strength = strengths[b]
        before = np.maximum(strength - changes[b], zero)
        whole_now, whole_before = max(_sum(strength), least), max(_sum(before), least)
        for s in range(len(strength)):
            shares[b, s] = strength[s] / whole_now
            moves[b, s] = shares[b, s] - before[s] / whole_before


@native
def _sum(values: Array) -> np.float32:
    """Return the sum of up to 64 numbers, to the last bit as numpy adds them up."""
    count = len(values) // 8 * 8
    total = np.float32(0.0)
    if count:
        eight = np.zeros(8, np.float32)
        for i in range(count):
            eight[i % 8] += values[i]
        total = ((eight[0] + eight[1]) + (eight[2] + eight[3])) + (
            (eight[4] + eight[5]) + (eight[6] + eight[7])
        )
    for i in range(count, len(values)):
        total += values[i]
    return total


class NamedInterests(NamedTuple):
    """The strongest interests of B users.

    `labels` (B, 3) int32 are the label codes of the interests' medoids; if the catalogue no longer
    has one, of the item of the history nearest to the interest; -1 if there is neither, and beyond
    the user's interests. `shares` (B, 3) float32 are those of the decayed mass of all interests,
    `moves` (B, 3) float32 the changes of the shares since a day before.
    """

    labels: NDArray[np.int32]
    shares: NDArray[np.float32]
    moves: NDArray[np.float32]


class EveryInterest(NamedTuple):
    """All interests of B users, strongest first.

    `labels` (B, S) int32 are as those of `NamedInterests`; `medoids` (B, S) int64 the catalogue
    rows of the items that the labels come from, -1 for none; `places` (B, S) int64 where the
    interests are in the user's row, and `births` (B, S) int64 the order in which they began, 0 for
    the oldest; both -1 beyond the user's interests.
    """

    labels: NDArray[np.int32]
    medoids: NDArray[np.int64]
    places: NDArray[np.int64]
    births: NDArray[np.int64]


def describe_interests(
    histories: Histories, requests: RequestBatch, items: ItemVectors
) -> tuple[EveryInterest, NamedInterests]:
    """Describe all interests of each user, and the strongest of them."""
    users, width = shape = histories.order.shape
    every = EveryInterest(
        np.empty(shape, np.int32),
        np.empty(shape, np.int64),
        np.empty(shape, np.int64),
        np.empty(shape, np.int64),
    )
    named = NamedInterests(
        np.empty((users, INTERESTS), np.int32),
        np.zeros((users, INTERESTS), np.float32),
        np.zeros((users, INTERESTS), np.float32),
    )
    share, moved = shares_of(histories.strengths, histories.changes)
    without = _describe_interests(
        requests.slots, histories.order, histories.strengths, share, moved,
        requests.states.interest_heads, items.table, items.label_codes, every, named,
    )  # fmt: skip
    if without:  # a medoid that is gone: rare
        labels, medoids, places, _ = every
        for b, i in np.argwhere((places >= 0) & (medoids < 0)):
            past = histories.ring_rows[b, histories.history[b, : histories.n_history[b]]]
            if len(past):
                cosines = items.vectors[past] @ histories.interests[b, places[b, i]]
                medoids[b, i] = past[int(np.argmax(cosines))]
                labels[b, i] = items.label_codes[medoids[b, i]]
        strongest = min(INTERESTS, width)
        is_named = named.shares[:, :strongest] > 0.0
        named.labels[:, :strongest][is_named] = labels[:, :strongest][is_named]
    return every, named


@native
def _describe_interests(
    slots: Slots, order: Array, strengths: Array, share: Array, moved: Array,
    interest_heads: Array, table: RowTable, label_codes: Array,
    every: EveryInterest, named: NamedInterests,
) -> int:  # fmt: skip
    """Fill what is returned; return how many medoids the catalogue does not have."""
    labels, medoids, places, births = every
    without = 0
    named.labels[:] = -1
    for b in range(order.shape[0]):
        heads = interest_heads[max(slots[b], 0)]
        for i in range(order.shape[1]):
            place = order[b, i]
            labels[b, i] = -1
            medoids[b, i] = -1
            places[b, i] = -1
            births[b, i] = -1
            if not strengths[b, place] > 0.0:
                continue
            places[b, i] = place
            medoids[b, i] = row_of_hash(table.hashes, table.rows, heads[place]["medoid"])
            if medoids[b, i] >= 0:
                labels[b, i] = label_codes[medoids[b, i]]
            else:
                without += 1
            births[b, i] = 0
            for other in range(order.shape[1]):
                if strengths[b, other] > 0.0 and (
                    heads[other]["born"] < heads[place]["born"]
                    or (heads[other]["born"] == heads[place]["born"] and other < place)
                ):
                    births[b, i] += 1
        for i in range(min(named.labels.shape[1], order.shape[1])):
            named.shares[b, i] = share[b, order[b, i]]
            named.moves[b, i] = moved[b, order[b, i]]
            if named.shares[b, i] > 0.0:
                named.labels[b, i] = labels[b, i]
    return without
