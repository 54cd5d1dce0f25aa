"""What-if: a user's list with other weights or other events, beside the present one."""

import numpy as np

from tracker.api.lists import list_items
from tracker.api.messages import ListItem, Move, WhatIfAnswer, WhatIfBody
from tracker.api.problems import ProblemError
from tracker.api.reads import Copy, Reads
from tracker.api.server import Call
from tracker.api.users import Users
from tracker.events.kinds import Kinds
from tracker.events.wire import kind_code
from tracker.recommend.carry_over import carry_over
from tracker.recommend.inspection import older_share
from tracker.users.rows import UserRows
from tracker.users.states import RING_RETRACTED
from tracker.users.what_if import reweigh


class WhatIf:
    """Makes both lists from one copy; nothing is stored, counted or learned from.

    Args:
        reads: copies of users' states.
        users: makes the lists.
        kinds: the weights in force.
    """

    def __init__(self, reads: Reads, users: Users, kinds: Kinds) -> None:
        self._reads = reads
        self._users = users
        self._kinds = kinds

    async def what_if(self, call: Call) -> WhatIfAnswer:
        """Return both lists, and what moved."""
        copy = await self._reads.copy(call.path["user_id"])
        body: WhatIfBody = call.body
        return await self._reads.run(lambda: self._compare(copy, body))

    def _compare(self, copy: Copy, body: WhatIfBody) -> WhatIfAnswer:
        serving, learned = copy.moment.serving, copy.moment.learned
        list_request = self._users.list_request(body, copy.now, "reasons")
        rows, slot = copy.user.rows, copy.user.slot
        if slot < 0:
            slot = 0
            rows = self._users.rows_of_guest(copy.moment, [], list_request.now)
        carry_over(rows.states, np.array([slot]), serving.artifact)
        other = rows.copy_row(slot)
        make = self._users.lists.make
        before = make(serving, learned, rows, copy.user.slot, copy.name, list_request)
        self._change(other, copy, body)
        if body.add:
            serving.recommender.update(other, self._users.batch(body.add, list_request.now))
        slot = 0 if copy.known or body.add else -1
        after = make(serving, learned, other, slot, copy.name, list_request)
        recommender, requests, *_ = before
        old, new = (list_items(recommender, *steps[2:]) for steps in (before, after))
        return WhatIfAnswer(
            copy.user_id,
            list_request.now,
            copy.moment.offset,
            serving.version,
            round(older_share(requests, serving.artifact.vectors, recommender.options), 6),
            old,
            new,
            _moves(old, new),
        )

    def _change(self, rows: UserRows, copy: Copy, body: WhatIfBody) -> None:
        """Change the weights of events in the ring, and take some out.

        Raises:
            ProblemError: a kind has no weight to change, or a place is beyond the ring.
        """
        states = rows.states
        ring, count = states.ring[0], int(states.head[0]["n_ring"])
        weights = ring["weight"].astype(np.float64)
        for kind, weight in body.weights.items():
            line = self._kinds.table.get(kind)
            if line is None:
                raise ProblemError(400, "weights: a kind is not in the table of weights")
            same = ring["kind"] == kind_code(kind)
            scale = weight / line.weight if line.weight else 0.0
            weights[same] = weights[same] * scale if line.weight else weight
        for place in body.drop:
            if place >= count:
                raise ProblemError(400, f"drop: place {place}; the ring has {count} events")
            weights[count - 1 - place] = 0.0
        reweigh(states, 0, copy.moment.serving.artifact.vectors, weights)
        for place in body.drop:  # also one that weighs 0 already
            ring["flags"][count - 1 - place] |= RING_RETRACTED


def _moves(before: list[ListItem], after: list[ListItem]) -> list[Move]:
    """Return the items of either list that moved, those of the other list first."""
    old = {item.item_id: place for place, item in enumerate(before, 1)}
    new = {item.item_id: place for place, item in enumerate(after, 1)}
    scores = {item.item_id: item.score for item in before}
    moves = []
    for item in after:
        place = old.get(item.item_id)
        if place == new[item.item_id]:
            continue
        if place is None:
            why = f"it came in by {item.channel}, with a score of {item.score:.4f}"
        else:
            why = f"its score went from {scores[item.item_id]:.4f} to {item.score:.4f}"
        moves.append(Move(item.item_id, place, new[item.item_id], why))
    for item in before:
        if item.item_id not in new:
            why = f"its score was {item.score:.4f}; others have higher ones now"
            moves.append(Move(item.item_id, old[item.item_id], None, why))
    return moves
