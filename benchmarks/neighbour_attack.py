"""Pair an item with popular ones by made-up users, with the cap on one user and without.

    python -m benchmarks.neighbour_attack --result neighbour-attack

Honest users like items of a catalogue of 20 groups, most of them of one group each, within an hour.
Beside them made-up users like one of the ten most popular items, then the pushed one, again and
again. So whoever likes a popular item has the pushed one among its neighbours. What is measured is
in how many lists of honest users it is, and through which channel it came.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np

from benchmarks.results import ROOT, add_option, store
from tests.worlds import START, World
from tracker.events.wire import hash_id
from tracker.recommend.channels import CHANNEL
from tracker.users import ring

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


def without_cap() -> list[dict[str, Any]]:
    """Measure all attacks in another process, whose kernels are compiled without the cap."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(ROOT / "build" / "uncapped")}
    command = [sys.executable, "-m", "benchmarks.neighbour_attack", "--without"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure as told by the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--without", action="store_true", help="only print it without the cap")
    add_option(parser)
    given = parser.parse_args()
    if given.without:
        ring.MOST_FOR_AN_ITEM = 1 << 30  # a constant of kernels that are not compiled yet
        print(json.dumps([measure(attack) for attack in ATTACKS]))
        return
    figures = {
        "likes": LIKES, "users": USERS, "items": ITEMS, "cap": ring.MOST_FOR_AN_ITEM,
        "with": [measure(attack) for attack in ATTACKS], "without": without_cap(),
    }  # fmt: skip
    for name in ("with", "without"):
        for row in figures[name]:  # type: ignore[attr-defined]
            print(f"{name:8} {row}")
    store(given.result, figures)


if __name__ == "__main__":
    main()
