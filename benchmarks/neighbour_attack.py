"""Pair an item with popular ones by made-up users, with the cap on one user and without.

    python -m benchmarks.neighbour_attack --result neighbour-attack

Honest users like items of a catalogue of 20 groups, most of them of one group each, within an hour.
Beside them made-up users like one of the ten most popular items, then the pushed one, again and
again. So whoever likes a popular item has the pushed one among its neighbours. What is measured is
in how many lists of honest users it is, and through which channel it came.
"""

from typing import Any, NamedTuple

import numpy as np

from benchmarks.attacks import run_attacks
from tests.worlds import START, World
from tracker.events.wire import hash_id
from tracker.recommend.channels import CHANNEL

HOUR = 3600.0
USERS, ITEMS, GROUPS, LIKES = 10_000, 200, 20, 100_000
PUSHED, POPULAR = 150, 10
"""The item that is pushed, and how many of the most popular ones it is paired with."""

AT_HOME = 0.8
"""Share of a user's likes that are of the user's group."""

ASKED, K = 2000, 10
"""Honest users whose lists are looked at, and the length of these."""

CHUNK = 1000


class Attack(NamedTuple):
    """An attack: the users made for it, and the events of each, an even number."""

    users: int
    each: int

    @property
    def name(self) -> str:
        """A name for a table."""
        if not self.users:
            return "nobody"
        who = "1 user" if self.users == 1 else f"{self.users:,} users"
        return f"{who}, {self.each:,} each"


ATTACKS = (Attack(0, 0), Attack(1, 1000), Attack(10, 100), Attack(500, 2), Attack(1000, 10))


def measure(attack: Attack) -> dict[str, Any]:
    """Let an hour pass with an attack in it; return in which lists the pushed item is."""
    random = np.random.default_rng(0)
    ranks = 1.0 / np.arange(1, ITEMS + 1) ** 0.8
    users = random.integers(0, USERS, LIKES)
    chosen = random.choice(ITEMS, LIKES, p=ranks / ranks.sum())
    of_group = ranks.reshape(-1, GROUPS)[:, 0]
    own = random.choice(len(of_group), LIKES, p=of_group / of_group.sum())
    items = np.where(random.random(LIKES) < AT_HOME, own * GROUPS + users % GROUPS, chosen)
    times = START + HOUR * random.random(LIKES)
    pairs = np.tile(np.array([-1, PUSHED]), attack.users * attack.each // 2)
    pushed = np.where(pairs < 0, random.integers(0, POPULAR, len(pairs)), pairs)
    pushed_times = START + HOUR * np.sort(random.random((attack.users, attack.each)), axis=1)
    users = np.concatenate([users, USERS + np.repeat(np.arange(attack.users), attack.each)])
    items = np.concatenate([items, pushed])
    times = np.concatenate([times, pushed_times.ravel()])
    order = np.argsort(times, kind="stable")
    world = World(ITEMS, users=USERS + attack.users, groups=GROUPS)
    for start in range(0, len(order), CHUNK):
        world.send(
            *(
                {"user": int(users[at]), "item": f"i{items[at]}", "time": float(times[at])}
                for at in order[start : start + CHUNK].tolist()
            )
        )
    batch = world.recommend(list(range(ASKED)), now=START + HOUR, k=K)
    there = batch.rows == PUSHED
    slot = world.item_slots[hash_id(f"i{PUSHED}")]
    counted = int(world.item_states.head["positives"][slot])
    return {
        "attack": attack.name,
        "users": attack.users,
        "share": len(pushed) / len(order),
        "sent": len(pushed) // 2,
        "counted": counted - int((items[:LIKES] == PUSHED).sum()),
        "in_lists": float(there.any(axis=1).mean()),
        "by_neighbours": float((there & (batch.channels == CHANNEL.neighbours)).any(axis=1).mean()),
    }


if __name__ == "__main__":
    run_attacks(
        "neighbour_attack",
        __doc__,
        lambda: [measure(attack) for attack in ATTACKS],
        {"likes": LIKES, "users": USERS, "items": ITEMS},
    )
