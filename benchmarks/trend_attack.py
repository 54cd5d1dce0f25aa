"""Push an item into the trends by one user and by many, with the cap on one user and without.

    python -m benchmarks.trend_attack --result trend-attack

In one hour, 20,000 users send 100,000 likes of 200 items, some of them far more often than others.
Beside them an attack likes one item that few choose. What is measured is the place of this item in
the trend afterwards, and in how many lists of honest users it is.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.attacks import run_attacks
from tests.worlds import START, World
from tracker.events.wire import hash_id
from tracker.items.counts import COUNT

HOUR = 3600.0
USERS, ITEMS, LIKES = 20_000, 200, 100_000
PUSHED = 150
"""The item that is pushed: place 151 of 200 by how often it is chosen."""

ASKED, K = 1000, 10
"""Honest users whose lists are looked at, and the length of these."""

CHUNK = 1000


class Attack(NamedTuple):
    """An attack: the users made for it, the events of each, and how they hide.

    After every five likes of the pushed item come `between` likes of other items, which push the
    five out of the user's recent events.
    """

    users: int
    each: int
    between: int = 0

    @property
    def name(self) -> str:
        """A name for a table."""
        if not self.users:
            return "nobody"
        who = "1 user" if self.users == 1 else f"{self.users:,} users"
        return f"{who}, {self.each:,} each" + (", hidden" if self.between else "")

    def items(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Return the items (each,) of the events of a user."""
        wanted = np.arange(self.each) % (5 + self.between) < 5
        return np.where(wanted, PUSHED, random.integers(0, ITEMS, self.each))


ATTACKS = (
    Attack(0, 0), Attack(1, 1000), Attack(1, 1000, 28), Attack(10, 100), Attack(1000, 1),
    Attack(1000, 10),
)  # fmt: skip


def measure(attack: Attack) -> dict[str, Any]:
    """Let an hour pass with an attack in it; return what became of the pushed item."""
    random = np.random.default_rng(0)
    chances = 1.0 / np.arange(1, ITEMS + 1) ** 0.8
    chosen = random.choice(ITEMS, LIKES, p=chances / chances.sum())
    own = [attack.items(random) for _ in range(attack.users)]
    items = np.concatenate([chosen, *own])
    users = np.concatenate(
        [random.integers(0, USERS, LIKES), USERS + np.repeat(np.arange(attack.users), attack.each)]
    )
    own_times = np.sort(random.random((attack.users, attack.each)), axis=1).ravel()
    times = START + HOUR * np.concatenate([random.random(LIKES), own_times])
    order = np.argsort(times, kind="stable")
    world = World(ITEMS, users=USERS + attack.users)
    for start in range(0, len(order), CHUNK):
        world.send(
            *(
                {"user": int(users[at]), "item": f"i{items[at]}", "time": float(times[at])}
                for at in order[start : start + CHUNK].tolist()
            )
        )
    end = START + HOUR
    slot = world.item_slots[hash_id(f"i{PUSHED}")]
    columns = world.view.columns
    faded = (end - columns.ref_times) / columns.half_lives[COUNT.short]
    trend = columns.log2_counts[:, COUNT.short] - faded
    lists = world.recommend(list(range(ASKED)), now=end, k=K).rows
    return {
        "attack": attack.name,
        "users": attack.users,
        "share": attack.users * attack.each / len(order),
        "sent": int((items[LIKES:] == PUSHED).sum()),
        "counted": int(world.item_states.head["positives"][slot]) - int((chosen == PUSHED).sum()),
        "place": 1 + int((trend > trend[PUSHED]).sum()),
        "in_lists": float((lists == PUSHED).any(axis=1).mean()),
    }


if __name__ == "__main__":
    run_attacks(
        "trend_attack",
        __doc__,
        lambda: [measure(attack) for attack in ATTACKS],
        {"likes": LIKES, "users": USERS, "items": ITEMS},
    )
