"""Events of a walk: a stream that its seed decides, and bursts of one kind of oddity."""

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.walk.model import hash_of

START = 1_750_000_000.0
SECONDS_AN_EVENT = 0.5
ITEMS = 300
GROUPS = 12
SCENES = (None, "home", "search", "cart")
KINDS: tuple[tuple[str, float | None], ...] = (
    ("view", None),
    ("click", None),
    ("like", None),
    ("cart", None),
    ("purchase", 2.0),
    ("rate", 4.0),
    ("rate", 2.0),
    ("dwell", 45.0),
    ("impression", None),
    ("dislike", None),
    ("hide", None),
)
DAY = 86400.0

Sent = tuple[str | None, bytes | None]
"""User, who is the record's key, and value of a record."""


def encode(**fields: Any) -> bytes:
    """Return the JSON of an event, without fields that are None."""
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


class Shoppers:
    """Made-up users: a few are much more active than others, and each likes one group of items.

    Args:
        seed: decides all.
        users: their number.
        prefix: of the event ids.
    """

    def __init__(self, seed: str, users: int, prefix: str) -> None:
        self.chance = random.Random(seed)
        self.users = users
        self.prefix = prefix
        self.given: dict[str, list[str]] = {}
        self.announced: dict[str, list[str]] = {}
        self.count = 0

    def user(self) -> str:
        """Choose a user."""
        some = self.users if self.chance.random() < 0.8 else 1 + self.users // 50
        return f"u{self.chance.randrange(some)}"

    def event(self, user: str, time: float, event_id: str | None = None, **more: Any) -> Sent:
        """Make an event of a user."""
        chance = self.chance
        self.count += 1
        item = f"i{chance.randrange(ITEMS)}"
        if chance.random() < 0.5:
            item = f"i{chance.randrange(ITEMS // GROUPS) * GROUPS + hash_of(user) % GROUPS}"
        if chance.random() < 0.03:
            item = f"new{chance.randrange(20)}"
        kind, value = chance.choice(KINDS)
        waiting = self.announced.get(user)
        name: str | None = event_id or (waiting.pop(0) if waiting else f"{self.prefix}{self.count}")
        if chance.random() < 0.1 and event_id is None and not waiting:
            name = None  # never known as a repeat, and cannot be taken back
        elif name is not None:
            self.given.setdefault(user, []).append(name)
            del self.given[user][:-60]
        return user, encode(
            user_id=user, item_id=item, kind=kind, timestamp=round(time, 3),
            scene=chance.choice(SCENES), value=value, event_id=name, **more,
        )  # fmt: skip

    def retraction(self, user: str, time: float, before: bool = False) -> Sent | None:
        """Take back an event of a user, which is yet to come if `before`; None if there is none."""
        if before:
            name = f"{self.prefix}later{self.count}"
            self.count += 1
            self.announced.setdefault(user, []).append(name)
        elif self.given.get(user):
            name = self.chance.choice(self.given[user])
        else:
            return None
        return user, encode(user_id=user, retracts=name, timestamp=round(time, 3))


def stream(seed: int, users: int) -> Iterator[Sent]:
    """Yield the events of all of a walk: some are late, repeated or taken back."""
    shoppers = Shoppers(f"stream {seed}", users, "e")
    chance = shoppers.chance
    last: list[Sent] = []
    number = 0
    while True:
        number += 1
        user = shoppers.user()
        time = START + number * SECONDS_AN_EVENT
        if chance.random() < 0.1:
            time -= chance.random() * 3600
        lucky = chance.random()
        sent: Sent | None = None
        if lucky < 0.02:
            sent = shoppers.retraction(user, time)
        elif lucky < 0.025:
            sent = shoppers.retraction(user, time, before=True)
        elif lucky < 0.03 and last:
            sent = chance.choice(last)
        sent = sent or shoppers.event(user, time)
        last = [*last[-50:], sent]
        yield sent


def burst(kind: str, seed: str, users: int, now: float) -> list[Sent]:
    """Return some events of one kind; `now` is the time of the stream."""
    shoppers = Shoppers(seed, users, f"{seed.replace(' ', '-')}-")
    chance = shoppers.chance
    count = chance.randrange(20, 80)
    if kind == "late":
        ages = [chance.random() * chance.choice((1.0, 3.0, 40.0)) * DAY for _ in range(count)]
        return [shoppers.event(shoppers.user(), now - age) for age in ages]
    if kind == "repeated":
        one = [shoppers.event(shoppers.user(), now) for _ in range(count // 2)]
        again = [*one, *one]
        chance.shuffle(again)
        return [*one, *again]
    if kind == "retracted":
        found: list[Sent] = []
        names = [shoppers.user() for _ in range(6)]
        for _ in range(count):
            user = chance.choice(names)
            lucky = chance.random()
            sent = None
            if lucky < 0.4:
                sent = shoppers.retraction(user, now, before=lucky < 0.2)
            found.append(sent or shoppers.event(user, now - chance.random() * 600))
        return found
    if kind == "rubbish":
        return [_rubbish(chance, shoppers.user(), now) for _ in range(count)]
    return [shoppers.event(shoppers.user(), now) for _ in range(count)]


def _rubbish(chance: random.Random, user: str, now: float) -> Sent:
    """Return a record that has to be rejected."""
    good = {"user_id": user, "item_id": "i1", "kind": "like", "timestamp": now}
    values: list[bytes | None] = [
        None,
        b"",
        b"\xff\xfe\x00rubbish",
        b"user,item,like",
        b"[" * 5000,
        b"17",
        chance.randbytes(chance.randrange(1, 3000)),
        encode(**{**good, "kind": "veiw"}),
        encode(**{**good, "timestamp": 4.5e9}),
        encode(**{**good, "item_id": "x" * 400}),
        encode(**{**good, "user_id": ""}),
        encode(**{**good, "value": "many"}),
        encode(user_id=user, item_id="i1", timestamp=now),
        encode(item_id="i1", kind="like", timestamp=now),
        encode(**{**good, "timestamp": "yesterday"}),
    ]
    value = chance.choice(values)
    return (user if value is None else chance.choice((None, user))), value
