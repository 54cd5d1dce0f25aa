"""The rules of users' and items' states in plain Python, written from the documentation alone.

It shares no code with the product: sums are lists of terms that are added up only when they are
compared, rings are lists, and a seen set is a set of bits. docs/concepts/state.md, time.md,
docs/reference/rows.md and events.md are what it follows.

Which version of the index was in use when an event was applied is known only up to the moments at
which each worker took it up. Where that matters (another basis, an item that one version lacks) a
user has several possible states, of which one has to be the stored one.
"""

import json
import math
import struct
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field, replace

import xxhash

WEIGHTS = {
    "impression": 0.0, "view": 0.3, "click": 0.5, "dwell": 1.0, "play": 1.0, "search": 0.5,
    "like": 2.0, "save": 2.0, "follow": 2.0, "share": 2.0, "comment": 1.0, "cart": 2.0,
    "remove_from_cart": -0.5, "purchase": 3.0, "return": -2.0, "rate": 2.0, "skip": -0.3,
    "unlike": -1.0, "dislike": -2.0, "hide": -2.0, "report": -3.0,
}  # fmt: skip

HALF_LIVES = (1800.0, 86400.0, 604800.0, 5184000.0)
NEGATIVE_HALF_LIFE = 5184000.0
INTEREST_HALF_LIFE = 1209600.0
RING, LEAVE = 28, 4
PENDING = 4
MOST_FOR_AN_ITEM, ITEM_SECONDS = 5, 3600.0
SEEN_BITS, SEEN_CAPACITY, PROBES = 16384, 1500, 7
SCENES_OF_AN_ITEM = 4
INTERESTS = 8

LATEST = 4e9
"""Times past it are of the future, whatever the clock of a test."""

_ALL = 2**64 - 1


def hash_of(text: str) -> int:
    """Return the XXH3 hash of a text, 1 in the place of 0."""
    return xxhash.xxh3_64_intdigest(text.encode()) or 1


def single(number: float) -> float:
    """Return a number with the precision of 32 bits."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def left(age: float, half_life: float) -> float:
    """Return what is left of 1 after an age."""
    return 1.0 if math.isinf(half_life) else math.exp2(-age / half_life)


def mixed(key: int) -> int:
    """Spread a key of 64 bits as MurmurHash3 ends."""
    key = ((key ^ (key >> 33)) * 0xFF51AFD7ED558CCD) & _ALL
    key = ((key ^ (key >> 33)) * 0xC4CEB9FE1A85EC53) & _ALL
    return key ^ (key >> 33)


def key_of_event(event_id: int) -> int:
    """Return the key under which a seen set knows an event id."""
    return mixed(event_id ^ 0x9E3779B97F4A7C15)


def bits_of(key: int) -> list[int]:
    """Return the bits of a key in a generation of a seen set."""
    spread = mixed(key)
    place, step = spread & 0xFFFFFFFF, (spread >> 32) | 1
    return [(((place + n * step) & 0xFFFFFFFF) * SEEN_BITS) >> 32 for n in range(PROBES)]


@dataclass
class SeenSet:
    """Two generations of bits; the fuller one gives way when both are full."""

    bits: list[set[int]] = field(default_factory=lambda: [set(), set()])
    counts: list[int] = field(default_factory=lambda: [0, 0])
    active: int = 0

    def add(self, key: int) -> None:
        """Add a key, unless the active generation has it."""
        places = bits_of(key)
        if self.bits[self.active].issuperset(places):
            return
        if self.counts[self.active] >= SEEN_CAPACITY:
            self.active = 1 - self.active
            self.counts[self.active], self.bits[self.active] = 0, set()
        self.bits[self.active].update(places)
        self.counts[self.active] += 1

    def has(self, key: int) -> bool:
        """Return whether a generation has all bits of a key."""
        places = bits_of(key)
        return any(bits.issuperset(places) for bits in self.bits)


@dataclass(frozen=True)
class Action:
    """One event as the rules take it; `retracts` is 0 for an action."""

    user: str
    time: float
    item: int = 0
    weight: float = 0.0
    scene: int = 0
    event_id: int = 0
    retracts: int = 0


def read_event(value: bytes | None) -> Action | None:
    """Read the value of a record; None for what has to be rejected."""
    try:
        fields = json.loads((value or b"").decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    texts = ("user_id", "item_id", "kind", "scene", "event_id", "retracts")
    for name in texts:
        text = fields.get(name)
        if text is not None and (not isinstance(text, str) or len(text.encode()) > 256):
            return None
    user, time = fields.get("user_id"), fields.get("timestamp")
    if not user or not isinstance(time, int | float) or not 0 <= time < LATEST:
        return None
    if fields.get("retracts"):
        return Action(user, time, retracts=hash_of(fields["retracts"]))
    kind, value_of = fields.get("kind"), fields.get("value")
    if not fields.get("item_id") or kind not in WEIGHTS:
        return None
    if value_of is not None and not isinstance(value_of, int | float):
        return None
    scene = fields.get("scene")
    return Action(
        user,
        time,
        hash_of(fields["item_id"]),
        single(weight_of(kind, value_of)),
        (hash_of(scene) & 0xFFFFFFFF or 1) if scene else 0,
        hash_of(fields["event_id"]) if fields.get("event_id") else 0,
    )


def weight_of(kind: str, value: float | None) -> float:
    """Return the signed weight of a kind with a value."""
    weight = WEIGHTS[kind]
    if value is None:
        return weight
    if kind == "rate":
        return weight * min(1.0, max(-1.0, (value - 3.0) / 2.0))
    if kind in ("dwell", "play"):
        return weight * (1.0 - math.exp2(-value / 60.0))
    if kind == "purchase":
        return weight * (value if value <= 1.0 else min(4.0, 1.0 + math.log2(value)))
    return weight


@dataclass(frozen=True)
class Content:
    """What of a version of the index states depend on: its basis, and the items that it has.

    Attributes:
        earlier: whether the rules are those of a worker of an earlier commit: it appended late
            events to the ring, did not compute interests again, told items of all events and
            of all retractions, and did not move times by an event that was retracted before it
            came.
    """

    basis: str
    items: frozenset[int]
    earlier: bool = False


@dataclass
class Entry:
    """One event in a ring."""

    item: int
    event_id: int
    time: float
    weight: float
    scene: int
    number: int
    in_sums: bool = False
    unknown: bool = False
    retracted: bool = False
    of_item: bool = True
    """Whether its item was told of it."""

    @property
    def place(self) -> tuple[float, int]:
        """The order in a ring."""
        return self.time, self.event_id


Term = tuple[float, float, int, int]
"""Time, weight, item and number of an event in the sums."""


@dataclass
class User:
    """One possible state of a user."""

    basis: str = ""
    step: int = 0
    ring: list[Entry] = field(default_factory=list)
    terms: dict[int, Term] = field(default_factory=dict)
    interests: set[int] = field(default_factory=set)
    seen: SeenSet = field(default_factory=SeenSet)
    pending: list[int] = field(default_factory=list)
    ref_time: float = 0.0
    first_time: float = 0.0
    last_time: float = 0.0
    last_offset: int = -1
    last_scene: int = 0
    events: int = 0
    positives: int = 0
    negatives: int = 0
    unknown: int = 0
    known_positives: int = 0
    retracted: int = 0
    too_old: int = 0
    duplicates: int = 0
    evicted: int = 0

    def copy(self) -> "User":
        """Return a state that changes without this one: ten times as fast as a deep copy."""
        new = copy(self)
        new.ring = [copy(entry) for entry in self.ring]
        new.terms, new.interests = dict(self.terms), set(self.interests)
        seen = self.seen
        new.seen = SeenSet([set(bits) for bits in seen.bits], list(seen.counts), seen.active)
        new.pending = list(self.pending)
        return new

    @property
    def kind(self) -> tuple[object, ...]:
        """What tells this state from another possible one of the same user.

        Also the order of the ring, and of which entries items were told: two commits differ there.
        """
        ring = tuple((e.number, e.in_sums, e.unknown, e.of_item) for e in self.ring)
        interests = frozenset(self.interests)
        return self.basis, self.step, frozenset(self.terms), interests, self.unknown, ring

    def known(self, item: int) -> bool:
        """Return whether an item is in the ring, or counts as seen."""
        if any(entry.item == item and not entry.retracted for entry in self.ring):
            return True
        return self.evicted > 0 and self.seen.has(item)

    def carry_over(self, content: Content) -> None:
        """Count the events of the ring alone, in another basis."""
        self._sort()
        for entry in self.ring:
            entry.in_sums = (
                entry.weight != 0 and not entry.retracted and entry.item in content.items
            )
        self.terms = {entry.number: _term(entry) for entry in self.ring if entry.in_sums}
        self.interests = {number for number, term in self.terms.items() if term[1] > 0}
        self.known_positives = len(self.interests)
        self.basis = content.basis

    def apply(self, action: Action, offset: int, number: int, content: Content) -> "Delta | None":
        """Apply one event; return what its item is told."""
        if self.ring and self.basis != content.basis:
            self.carry_over(content)
        self.basis = content.basis
        self.last_offset = offset
        if action.retracts:
            return self._retract(action.retracts, content)
        if action.event_id:
            if any(entry.event_id == action.event_id for entry in self.ring):
                self.duplicates += 1
                return None
            if action.event_id in self.pending:
                self.pending.remove(action.event_id)
                self.retracted += 1
                if not content.earlier:
                    self._move(action.time)
                self._append(_entry(action, number, retracted=True))
                if not content.earlier:
                    self._sort()
                return None
        entry = _entry(action, number)
        is_late = (
            not content.earlier
            and bool(self.ring)
            and (action.time < self.last_time or entry.place < self.ring[-1].place)
        )
        self._move(action.time)
        self.events += 1
        self.last_scene = action.scene
        alike = [
            one
            for one in self.ring
            if one.item == entry.item
            and not one.retracted
            and (one.weight > 0) == (entry.weight > 0)
            and abs(one.time - entry.time) < ITEM_SECONDS
        ]
        place = sum(one.place <= entry.place for one in self.ring)
        is_lost = is_late and self.evicted > 0 and place <= LEAVE
        entry.of_item = content.earlier or (len(alike) < MOST_FOR_AN_ITEM and not is_lost)
        self.positives += action.weight > 0
        self.negatives += action.weight < 0
        entry.unknown = action.item not in content.items
        entry.in_sums = not entry.unknown and action.weight != 0
        self.unknown += entry.unknown
        if entry.in_sums:
            self.terms[number] = _term(entry)
            if action.weight > 0:
                self.known_positives += 1
                self.interests.add(number)
        if is_late:  # also what an earlier worker had left in the order of arrival
            self._sort()
        self._append(entry)
        if is_late:
            self._sort()
        if is_late and entry.in_sums and entry.weight > 0 and self._holds_all(content):
            self._refill()
        return _delta(entry, 1, offset)

    def _move(self, time: float) -> None:
        self.first_time = min(self.first_time, time) if self.ring else time
        self.last_time = max(self.last_time, time) if self.ring else time
        self.ref_time = max(self.ref_time, time)

    def _sort(self) -> None:
        self.ring.sort(key=lambda entry: entry.place)

    def _append(self, entry: Entry) -> None:
        if len(self.ring) == RING:
            for old in self.ring[:LEAVE]:
                if not old.retracted:
                    self.seen.add(old.item)
                if old.event_id:
                    self.seen.add(key_of_event(old.event_id))
            del self.ring[:LEAVE]
            self.evicted += LEAVE
        self.ring.append(entry)

    def _holds_all(self, content: Content) -> bool:
        return not self.evicted and all(
            entry.item in content.items
            for entry in self.ring
            if entry.in_sums and not entry.retracted
        )

    def _refill(self) -> None:
        self.interests = {
            entry.number
            for entry in self.ring
            if entry.in_sums and not entry.retracted and entry.weight > 0
        }

    def _retract(self, event_id: int, content: Content) -> "Delta | None":
        found = [entry for entry in self.ring if entry.event_id == event_id]
        if found:
            entry = found[-1]
            if entry.retracted:
                return None
            entry.retracted = True
            self.events -= 1
            self.retracted += 1
            self.positives -= entry.weight > 0
            self.negatives -= entry.weight < 0
            self.unknown -= entry.unknown
            if entry.in_sums:
                del self.terms[entry.number]
                if entry.weight > 0:
                    self.known_positives -= 1
                    self._refill()
            # An earlier worker does not know of which events the item was not told.
            told = replace(entry, of_item=entry.of_item or content.earlier)
            return _delta(told, -1, self.last_offset)
        if self.evicted and self.seen.has(key_of_event(event_id)):
            self.too_old += 1
        elif event_id not in self.pending:
            if len(self.pending) == PENDING:
                del self.pending[0]
                self.too_old += 1
            self.pending.append(event_id)
        return None


def _term(entry: Entry) -> Term:
    return entry.time, entry.weight, entry.item, entry.number


def _delta(entry: Entry, sign: int, offset: int) -> "Delta | None":
    if not entry.of_item:
        return None
    return Delta(entry.item, entry.time, entry.weight, entry.scene, sign, offset)


def _entry(action: Action, number: int, retracted: bool = False) -> Entry:
    return Entry(
        action.item, action.event_id, action.time, action.weight, action.scene, number,
        retracted=retracted,
    )  # fmt: skip


@dataclass(frozen=True)
class Delta:
    """What an item is told of an event: sign -1 takes it out again."""

    item: int
    time: float
    weight: float
    scene: int
    sign: int
    offset: int


@dataclass
class ItemModel:
    """What a row of an item has to hold."""

    ref_time: float = 0.0
    first_time: float = math.inf
    last_time: float = -math.inf
    positives: int = 0
    negatives: int = 0
    neutrals: int = 0
    deltas: list[Delta] = field(default_factory=list)

    @classmethod
    def of(cls, deltas: Iterable[Delta]) -> "ItemModel":
        """Return what a row holds of some events."""
        item = cls()
        for delta in deltas:
            item.apply(delta)
        return item

    def apply(self, delta: Delta) -> None:
        """Count an event, or take it out."""
        self.ref_time = max(self.ref_time, delta.time)
        if delta.sign > 0:
            self.first_time = min(self.first_time, delta.time)
            self.last_time = max(self.last_time, delta.time)
        self.positives += delta.sign * (delta.weight > 0)
        self.negatives += delta.sign * (delta.weight < 0)
        self.neutrals += delta.sign * (delta.weight == 0)
        self.deltas.append(delta)

    @property
    def is_empty(self) -> bool:
        """Whether all events were taken back."""
        return not any((self.positives, self.negatives, self.neutrals))

    def count(self, half_life: float, scene: int | None = None) -> float:
        """Return the decayed number of positive events, of one scene or of all."""
        return sum(
            delta.sign * left(self.ref_time - delta.time, half_life)
            for delta in self.deltas
            if delta.weight > 0 and scene in (None, delta.scene)
        )

    def weight(self, half_life: float) -> float:
        """Return the decayed sum of signed weights."""
        return sum(
            delta.sign * delta.weight * left(self.ref_time - delta.time, half_life)
            for delta in self.deltas
        )

    def scenes(self) -> set[int]:
        """Return the scenes of positive events."""
        return {delta.scene for delta in self.deltas if delta.weight > 0 and delta.scene}


@dataclass
class Model:
    """Users by partition and id, each with its possible states, and items by hash."""

    free: bool = False
    """Whether a version may be followed by one from before, while both are possible."""
    users: dict[tuple[int, str], list[User]] = field(default_factory=dict)
    items: dict[int, ItemModel] = field(default_factory=dict)
    unsure: set[int] = field(default_factory=set)
    """Items of which two possible states of a user tell different things."""
    numbers: int = 0
    most_states: int = 1

    @property
    def unsure_users(self) -> int:
        """Number of users of whom more than one state is possible in the end."""
        return sum(len({state.kind[2:] for state in states}) > 1 for states in self.users.values())

    def apply(
        self, partition: int, offset: int, action: Action, possible: dict[int, Content]
    ) -> None:
        """Apply one event of a partition.

        Args:
            partition: of the events topic.
            offset: of the event.
            action: the event.
            possible: versions that may have been in use, by the order in which they came.
        """
        states = self.users.setdefault((partition, action.user), [User()])
        self.numbers += 1
        after: dict[tuple[object, ...], User] = {}
        deltas: set[Delta | None] = set()
        for state in states:
            choices: dict[Content, int] = {}
            for step, content in possible.items():
                if self.free or step >= state.step:
                    choices.setdefault(content, step)
            for content, step in (choices or {c: s for s, c in possible.items()}).items():
                new = state if len(states) * len(choices) == 1 else state.copy()
                new.step = step
                deltas.add(new.apply(action, offset, self.numbers, content))
                after.setdefault(new.kind, new)
        self.users[partition, action.user] = list(after.values())
        self.most_states = max(self.most_states, len(after))
        told = [delta for delta in deltas if delta is not None]
        if len(deltas) > 1:
            self.unsure.update(delta.item for delta in told)
        for delta in told[:1]:
            self.items.setdefault(delta.item, ItemModel()).apply(delta)


def interests_mass(user: User, time: float) -> float:
    """Return the strength that all interests have together at a time."""
    terms = (user.terms[number] for number in user.interests if number in user.terms)
    return sum(weight * left(time - at, INTEREST_HALF_LIFE) for at, weight, _, _ in terms)
