"""Events that name no earlier one, in a log: joins of users, and what takes back without an id."""

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import JOINS, LATEST_OF_KIND, EventBatch


def join_users(batch: EventBatch) -> EventBatch:
    """Return the events without joins; those of a user who joined are of the other one.

    Later events of the user who joined stay that user's, until the next join.

    Args:
        batch: events in time order.
    """
    if not batch.joined:
        return batch
    owned: dict[str, list[int]] = {}
    for place, user in enumerate(batch.users):
        was = batch.joined.get(place)
        if was is None:
            owned.setdefault(user, []).append(place)
        elif was != user and was in owned:
            owned.setdefault(user, []).extend(owned.pop(was))
    users = list(batch.users)
    for user, places in owned.items():
        for place in places:
            users[place] = user
    batch.users[:] = users
    return batch.take(np.flatnonzero(batch.retracts != JOINS))


def name_retracted(batch: EventBatch) -> tuple[EventBatch, int]:
    """Return the events with retractions that all name an id, and how many found no event.

    What takes back the latest event of a kind names that event; one without an id gets one. If
    there is no such event that was not taken back before, the retraction is left out.

    Args:
        batch: events in time order, without joins.
    """
    nameless = np.flatnonzero(batch.retracts == LATEST_OF_KIND)
    if not len(nameless):
        return batch, 0
    retracted = _retracted_by_id(batch)
    keys = {_key(batch, place) for place in nameless.tolist()}
    candidates: dict[tuple[str, int, int], list[int]] = {}
    keep = np.ones(len(batch), np.bool_)
    for place in range(len(batch)):
        key = _key(batch, place)
        if key not in keys:
            continue
        if batch.retracts[place] == 0:
            if place not in retracted:
                candidates.setdefault(key, []).append(place)
        elif batch.retracts[place] == LATEST_OF_KIND:
            if not (of_key := candidates.get(key)):
                keep[place] = False
                continue
            event = of_key.pop()
            if batch.event_ids[event] == 0:
                batch.event_ids[event] = np.uint64(2**63 + event)
            batch.retracts[place] = batch.event_ids[event]
            batch.items[place] = batch.kinds[place] = 0
    return batch.take(np.flatnonzero(keep)), int((~keep).sum())


def _key(batch: EventBatch, place: int) -> tuple[str, int, int]:
    return batch.users[place], int(batch.items[place]), int(batch.kinds[place])


def _retracted_by_id(batch: EventBatch) -> set[int]:
    """Return the places of the events that a retraction names by their ids."""
    by_id: NDArray[np.int64] = np.flatnonzero((batch.retracts != 0) & (batch.retracts < JOINS))
    named = {(batch.users[place], int(batch.retracts[place])) for place in by_id.tolist()}
    ids = np.flatnonzero(batch.event_ids)
    return {
        place
        for place in ids.tolist()
        if (batch.users[place], int(batch.event_ids[place])) in named
    }
