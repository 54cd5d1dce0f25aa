"""The judgement of a walk: every row and every list against the model, and the pauses of output."""

import itertools
import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.states import Rows
from tests.walk.model import (
    HALF_LIVES,
    INTEREST_HALF_LIFE,
    INTERESTS,
    NEGATIVE_HALF_LIFE,
    SCENES_OF_AN_ITEM,
    SEEN_BITS,
    Content,
    ItemModel,
    Model,
    User,
    hash_of,
    interests_mass,
    left,
    read_event,
)
from tests.walk.walk import Journal, K, Walk
from tracker.artifact.artifact import Artifact
from tracker.items.config import ItemCounts
from tracker.items.states import ItemStates
from tracker.kafka.client import read_topic
from tracker.settings import Settings
from tracker.stream.waiting_items import decode_waiting
from tracker.users.seen import SeenSets
from tracker.users.states import UserStates

SUMS = 2e-4
"""Share of all that was ever in a sum of float32 numbers by which it may differ."""
COUNTS = 1e-6
EXACT = (
    "events", "positives", "negatives", "unknown", "known_positives", "retracted", "too_old",
    "duplicates", "evicted", "first_time", "last_time", "ref_time", "last_offset", "last_scene",
)  # fmt: skip
MOST_WAITING_POSITIVE, MOST_WAITING = 5, 10
"""Positive events, and events in all, that may wait of an item that has no row."""
TIES = 1e-5
"""Scores of which the items may change places."""
LATER_SECONDS = 20.0
"""An action that begins so much after another one leaves it alone."""


@dataclass
class Verdict:
    """The result of a walk; in order if all lists of wrong things are empty."""

    events: int = 0
    rejected: int = 0
    users: int = 0
    items: int = 0
    lists: int = 0
    repeated: int = 0
    compared_lists: int = 0
    """Of a plain walk: lists whose items were compared with those of an undisturbed worker."""
    most_states: int = 1
    unsure_users: int = 0
    unsure_items: int = 0
    lost: list[str] = field(default_factory=list)
    wrong_users: list[str] = field(default_factory=list)
    wrong_items: list[str] = field(default_factory=list)
    wrong_lists: list[str] = field(default_factory=list)
    without_list: list[str] = field(default_factory=list)
    wrong_rejections: list[str] = field(default_factory=list)
    wrong_ends: list[str] = field(default_factory=list)
    pauses: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """All that is wrong."""
        return [
            *self.lost, *self.wrong_users, *self.wrong_items, *self.wrong_lists,
            *self.without_list, *self.wrong_rejections, *self.wrong_ends,
        ]  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A record of the events topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass
class Lists:
    """The lists of one event: how often each came, and what is in it."""

    user: str
    items: list[tuple[str, str]]
    artifact: str
    version: int
    times: list[float]
    timestamp: float = 0.0
    scores: tuple[float, ...] = ()
    earlier: bool = False
    """Whether a worker of an earlier commit made it: it has no version."""


class Versions:
    """What of the versions of an index a judgement needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents: dict[str, Content] = {}
        self.live: dict[str, frozenset[str]] = {}
        self.vectors: dict[str, dict[int, np.ndarray]] = {}
        self.bases: dict[int, str] = {}
        self.config: Any = None
        self.scales: ItemCounts | None = None

    def content(self, version: str) -> Content:
        """Return what states depend on."""
        if version not in self.contents:
            artifact = Artifact.load(self.root, version, device="cpu")
            vectors, basis = artifact.vectors, artifact.manifest.basis
            ids = list(vectors.ids)
            hashes = [hash_of(one) for one in ids]
            self.config = artifact.manifest.interest
            self.scales = artifact.manifest.item_counts
            self.contents[version] = Content(basis, frozenset(hashes))
            self.live[version] = frozenset(ids[: vectors.live])
            self.bases[hash_of(basis)] = basis
            known = self.vectors.setdefault(basis, {})
            for row, one in enumerate(hashes):
                known[one] = np.array(vectors.vectors[row], np.float64)
        return self.contents[version]


Place = tuple[int, int]
"""Partition and offset of an event."""


async def judge(walk: Walk, rows: Rows, calm: Mapping[Place, Lists] | None = None) -> Verdict:
    """Compare what a walk left with the model.

    Args:
        walk: that has ended.
        rows: that it left.
        calm: the lists that an undisturbed worker made of the same events, if the walk is plain; in
            each partition, the offset of an event is its number there.
    """
    journal, settings = walk.journal, walk.settings
    verdict = Verdict()
    versions = Versions(walk.artifacts)
    records: list[Record] = []
    async with aclosing(read_topic(settings, walk.topics.events)) as source:
        async for record in source:
            records.append(Record(record.partition, record.offset, record.key, record.value))
    lists = await read_lists(walk.settings, walk.topics.recommendations, verdict)
    actions = {(r.partition, r.offset): read_event(r.value) for r in records}
    verdict.events = sum(action is not None for action in actions.values())
    # Versions that differ in no item of an event are one: there are fewer possible states.
    used = frozenset(action.item for action in actions.values() if action is not None)
    contents = [
        replace(content, items=content.items & used, earlier=step.earlier)
        for step in journal.steps
        for content in [versions.content(step.version)]
    ]
    _compare_lost(walk, records, verdict)
    await _compare_rejections(walk, actions, verdict)
    _compare_lists(actions, lists, versions, verdict)
    if calm is not None:
        compare_plain(lists, calm, places_in_order(records), verdict)
    model = _model(records, actions, journal, contents, lists, verdict, free=False)
    verdict.users, verdict.items = len(rows.users), len(rows.items)
    verdict.most_states = model.most_states
    verdict.unsure_users, verdict.unsure_items = model.unsure_users, len(model.unsure)
    wrong = compare_users(model, rows, versions)
    if wrong:
        again = _model(records, actions, journal, contents, lists, Verdict(), free=True)
        more = compare_users(again, rows, versions)
        wrong = {name: text for name, text in wrong.items() if name in more}
    verdict.wrong_users = list(wrong.values())
    verdict.wrong_users += [f"user {name!r} is still owed a list" for name in rows.owed]
    verdict.wrong_items = compare_items(model, rows, versions)
    verdict.wrong_ends = [
        f"worker {end['worker']} ended with {end['code']} by itself:\n{end['text']}"
        for end in journal.ends
        if end["wrong"]
    ] + journal.hung
    verdict.pauses = pauses(journal, lists, walk.plan.partitions)
    return verdict


def _model(
    records: list[Record],
    actions: Mapping[tuple[int, int], Any],
    journal: Journal,
    contents: list[Content],
    lists: Mapping[tuple[int, int], Lists],
    verdict: Verdict,
    free: bool,
) -> Model:
    """Apply all events to a model; check lists against what users had seen."""
    model = Model(free=free)
    commits = Commits(lists)
    for record in records:
        place = (record.partition, record.offset)
        action = actions[place]
        if action is None:
            continue
        model.apply(
            *place, action, commits.narrow(possible_steps(journal, contents, *place), place)
        )
        made = lists.get(place)
        if made is None:
            continue
        user = model.users[record.partition, action.user][0]
        for item, channel in made.items:
            if channel != "seen" and user.known(hash_of(item)):
                verdict.wrong_lists.append(
                    f"list {place} of {action.user} has {item} by {channel}, which was seen"
                )
    return model


class Commits:
    """Tells from the lists which commit's worker applied an event: earlier lists have no version.

    An event between two lists of one commit was applied by that one.
    """

    def __init__(self, lists: Mapping[tuple[int, int], Lists]) -> None:
        self._offsets: dict[int, list[int]] = defaultdict(list)
        self._earlier: dict[int, list[bool]] = defaultdict(list)
        for partition, offset in sorted(lists):
            self._offsets[partition].append(offset)
            self._earlier[partition].append(lists[partition, offset].earlier)

    def narrow(self, possible: dict[int, Content], place: tuple[int, int]) -> dict[int, Content]:
        """Return those of the possible steps that are of the commit; all if both may be."""
        partition, offset = place
        if len({content.earlier for content in possible.values()}) < 2:
            return possible
        told = self._earlier[partition]
        at = bisect_left(self._offsets[partition], offset)
        if not 0 < at < len(told) or told[at - 1] != told[at]:
            return possible
        return {step: one for step, one in possible.items() if one.earlier == told[at]}


def possible_steps(
    journal: Journal, contents: list[Content], partition: int, offset: int
) -> dict[int, Content]:
    """Return the versions that may have been in use when an event was applied."""
    possible: dict[int, Content] = {}
    for number, step in enumerate(journal.steps):
        if number and offset < step.low[partition]:
            continue
        if step.high is not None and offset >= step.high[partition]:
            possible.clear()
        possible[number] = contents[number]
    return possible


async def read_lists(settings: Settings, topic: str, verdict: Verdict) -> dict[Place, Lists]:
    """Read the lists by partition and offset of their event; count repeats.

    A list of an earlier commit has no version: it takes the place of all that came before it.
    """
    lists: dict[Place, Lists] = {}
    newest: dict[str, int] = defaultdict(int)
    async with aclosing(read_topic(settings, topic)) as source:
        async for record in source:
            fields = json.loads(record.value or b"{}")
            partition, offset = (int(part) for part in fields["id"].rsplit("-", 2)[1:])
            verdict.lists += 1
            place, user = (partition, offset), fields["user_id"]
            version = fields.get("version", newest[user])
            newest[user] = max(newest[user], version)
            if place in lists:
                verdict.repeated += 1
                lists[place].times.append(record.appended)
                if record.key != lists[place].user.encode():
                    verdict.wrong_lists.append(f"list {fields['id']} is of two users")
                lists[place].version = max(lists[place].version, version)
                continue
            items = [(item["item_id"], item["channel"]) for item in fields["items"]]
            lists[place] = Lists(
                user,
                items,
                fields["artifact"],
                version,
                [record.appended],
                fields["timestamp"],
                tuple(item["score"] for item in fields["items"]),
                "version" not in fields,
            )
            if record.key != user.encode():
                verdict.wrong_lists.append(f"list {fields['id']} has the key {record.key!r}")
    return lists


def _compare_lists(
    actions: Mapping[tuple[int, int], Any],
    lists: Mapping[tuple[int, int], Lists],
    versions: Versions,
    verdict: Verdict,
) -> None:
    """Check that lists are of events and of the catalogue, and that each user has the last."""
    latest: dict[str, tuple[int, tuple[int, int]]] = {}
    for place, made in lists.items():
        action = actions.get(place)
        name = f"list {place} of {made.user}"
        if action is None or action.user != made.user:
            verdict.wrong_lists.append(f"{name} is of no event of that user")
            continue
        ids = [item for item, _ in made.items]
        versions.content(made.artifact)
        if not 0 < len(ids) <= K or len(set(ids)) < len(ids):
            verdict.wrong_lists.append(f"{name} has {len(ids)} items, {len(set(ids))} different")
        if foreign := set(ids) - versions.live[made.artifact]:
            verdict.wrong_lists.append(f"{name} has {sorted(foreign)} of no catalogue")
        seen = [channel == "seen" for _, channel in made.items]
        if seen != sorted(seen):
            verdict.wrong_lists.append(f"{name} has seen items before unseen ones")
        if (made.version, place) > latest.get(made.user, (-1, place)):
            latest[made.user] = (made.version, place)
    last: dict[str, tuple[int, int]] = {}
    for place, action in actions.items():
        if action is not None:
            last[action.user] = max(place, last.get(action.user, place))
    for user, place in last.items():
        if user not in latest:
            verdict.without_list.append(f"user {user} has no list; the last event is {place}")
        elif latest[user][1] != place:
            verdict.without_list.append(
                f"user {user}: the list of the largest version is of {latest[user][1]}, the last"
                f" event is {place}"
            )


def places_in_order(records: Sequence[Record]) -> dict[Place, Place]:
    """Return for each record its partition and its number there."""
    counts: dict[int, int] = defaultdict(int)
    found: dict[Place, Place] = {}
    for record in sorted(records, key=lambda one: (one.partition, one.offset)):
        found[record.partition, record.offset] = (record.partition, counts[record.partition])
        counts[record.partition] += 1
    return found


def compare_plain(
    lists: Mapping[Place, Lists],
    calm: Mapping[Place, Lists],
    order: Mapping[Place, Place],
    verdict: Verdict,
) -> None:
    """Compare lists with those that an undisturbed worker made of the same events.

    Items are equal but for ties of the score. Lists are passed over that one of them made together
    with a later event of the user, or for another time.
    """
    for place, made in lists.items():
        other = calm.get(order.get(place, place))
        if other is None or other.user != made.user or other.timestamp != made.timestamp:
            continue
        verdict.compared_lists += 1
        name = f"list {place} of {made.user}"
        if len(made.items) != len(other.items):
            verdict.wrong_lists.append(
                f"{name} has {len(made.items)} items, undisturbed {len(other.items)}"
            )
            continue
        rows = zip(made.items, other.items, made.scores, other.scores, strict=True)
        for at, (one, wanted, score, expected) in enumerate(rows):
            if abs(score - expected) > TIES * (1.0 + abs(expected)):
                verdict.wrong_lists.append(
                    f"{name} has at {at} {one} of {score:g}, undisturbed {wanted} of {expected:g}"
                )
                break


def _compare_lost(walk: Walk, records: list[Record], verdict: Verdict) -> None:
    """Check that all that the broker confirmed is there; a fault of the broker otherwise."""
    values = {(r.partition, r.offset): (r.value or b"").hex() for r in records}
    for partition, offset, text in walk.confirmed:
        if values.get((partition, offset)) != text:
            verdict.lost.append(f"record {partition} {offset} was confirmed and is not there")


async def _compare_rejections(
    walk: Walk, actions: Mapping[tuple[int, int], Any], verdict: Verdict
) -> None:
    """Check that what is no event was rejected, and nothing else."""
    rejected: set[tuple[int, int]] = set()
    async with aclosing(read_topic(walk.settings, walk.topics.rejected)) as source:
        async for record in source:
            headers = {name: value.decode() for name, value in record.headers}
            rejected.add((int(headers["partition"]), int(headers["offset"])))
    expected = {place for place, action in actions.items() if action is None}
    verdict.rejected = len(expected)
    verdict.wrong_rejections = [
        *(f"record {place} was not rejected" for place in sorted(expected - rejected)),
        *(f"event {place} was rejected" for place in sorted(rejected - expected)),
    ]


def compare_users(model: Model, rows: Rows, versions: Versions) -> dict[str, str]:
    """Name the users whose rows are none of the possible states, and why."""
    wrong: dict[str, str] = {}
    expected = {
        (partition, user.encode()): states for (partition, user), states in model.users.items()
    }
    for name in set(expected) ^ set(rows.users):
        wrong[str(name)] = f"user {name} is only in the {'model' if name in expected else 'rows'}"
    states, seen = UserStates(versions.config, 1), SeenSets(versions.config, 1)
    for name in sorted(set(expected) & set(rows.users)):
        states.unpack(np.zeros(1, np.int64), [rows.users[name]])
        seen.unpack(np.zeros(1, np.int64), [rows.seen.get(name)])
        problems = [_user_problem(user, states, seen, versions) for user in expected[name]]
        if all(problems):
            wrong[str(name)] = f"user {name}: {problems[-1]} ({len(problems)} possible states)"
    return wrong


def _user_problem(user: User, states: UserStates, seen: SeenSets, versions: Versions) -> str:
    """Return in what a stored state differs from a possible one; "" if in nothing."""
    head = states.head[0]
    for name in EXACT:
        if head[name] != getattr(user, name):
            return f"{name} is {head[name]}, expected {getattr(user, name)}"
    basis = versions.bases.get(int(head["basis"]), "?")
    if user.ring and basis != user.basis:
        return f"it is of basis {basis}, expected {user.basis}"
    ring = states.ring[0, : int(head["n_ring"])]
    stored = [
        (int(e["item"]), int(e["event_id"]), float(e["time"]), float(e["weight"]),
         int(e["scene"]), bool(e["flags"] & 1), bool(e["flags"] & 2), bool(e["flags"] & 4))
        for e in ring
    ]  # fmt: skip
    expected = [
        (e.item, e.event_id, e.time, e.weight, e.scene, e.in_sums, e.retracted, e.unknown)
        for e in user.ring
    ]
    if stored != expected:
        at = next((n for n, (a, b) in enumerate(zip(stored, expected, strict=False)) if a != b), -1)
        return f"the ring differs at {at} of {len(stored)} (expected {len(expected)})"
    if states.pending[0, : int(head["n_pending"])].tolist() != user.pending:
        return "the retractions that wait differ"
    return (
        _seen_problem(user, seen) or _sum_problem(user, states, versions)
        or _interest_problem(user, states)
    )  # fmt: skip


def _seen_problem(user: User, seen: SeenSets) -> str:
    for generation in range(2):
        bits = np.unpackbits(seen.bits[0, generation], bitorder="little")
        if set(np.flatnonzero(bits).tolist()) != user.seen.bits[generation]:
            return f"the seen set differs: {int(bits.sum())} of {SEEN_BITS} bits"
        if int(seen.counts[0, generation]) != user.seen.counts[generation]:
            return "the seen set has another number of ids"
    return ""


def _sum_problem(user: User, states: UserStates, versions: Versions) -> str:
    vectors = versions.vectors[user.basis] if user.basis else {}
    for h, half_life in enumerate((*HALF_LIVES, NEGATIVE_HALF_LIFE)):
        negative = h == len(HALF_LIVES)
        mass, total = 0.0, np.zeros(states.config.dim)
        for time, weight, item, _ in user.terms.values():
            if (weight < 0) == negative:
                part = abs(weight) * left(user.ref_time - time, half_life)
                mass += part
                total += part * vectors[item]
        stored_mass = float(states.head[0]["negative_mass"] if negative else states.masses[0, h])
        stored = states.negative[0] if negative else states.sums[0, h]
        # Rounding is of all that was ever in the sum, also of what was taken out again.
        bound = SUMS * (mass + 3.0)
        if abs(stored_mass - mass) > bound:
            return f"mass {h} is {stored_mass}, expected {mass}"
        if np.abs(stored - total).max() > bound:
            return f"sum {h} differs by {np.abs(stored - total).max():.2g}, its mass is {mass:.3g}"
    return ""


def _interest_problem(user: User, states: UserStates) -> str:
    n = int(states.head[0]["n_slots"])
    interests = states.interest_heads[0, :n]
    events = int(interests["events"].sum())
    if n > INTERESTS or events > len(user.interests):
        return f"{n} interests have {events} events, expected at most {len(user.interests)}"
    if bool(n) != bool(user.interests):
        return f"{n} interests, expected of {len(user.interests)} events"
    latest = max((float(one["ref_time"]) for one in interests), default=0.0)
    mass = sum(
        float(one["mass"]) * left(latest - float(one["ref_time"]), INTEREST_HALF_LIFE)
        for one in interests
    )
    expected = interests_mass(user, latest)
    if mass > expected * (1 + 1e-3) + 1e-4:
        return f"interests have the mass {mass}, expected {expected}"
    if events == len(user.interests) and abs(mass - expected) > 1e-3 * expected + 1e-4:
        return f"interests of all events have the mass {mass}, expected {expected}"
    return ""


def compare_items(model: Model, rows: Rows, versions: Versions) -> list[str]:
    """Name the items whose rows differ; counts are compared by the half-lives in use."""
    wrong: list[str] = []
    stored = {int.from_bytes(name, "big"): row for name, row in rows.items.items()}
    waiting = {int.from_bytes(name, "big"): row for name, row in rows.waiting.items()}
    for item in (set(model.items) - set(stored)) - model.unsure:
        # Of no catalogue: its events wait, until there are more than one user can add.
        one = model.items[item]
        n_waiting = len(decode_waiting(waiting[item])) if item in waiting else 0
        may_wait = (
            one.positives <= MOST_WAITING_POSITIVE
            and one.positives + one.negatives + one.neutrals <= MOST_WAITING
        )
        if not may_wait or n_waiting not in (len(one.deltas), 0 if one.is_empty else -1):
            wrong.append(f"item {item:x} has no row, {n_waiting} of {len(one.deltas)} events wait")
    for item in set(stored) - set(model.items) - model.unsure:
        wrong.append(f"item {item:x} is only in the rows")
    states = ItemStates(1, versions.scales)
    for item in sorted((set(model.items) & set(stored)) - model.unsure):
        states.unpack(np.zeros(1, np.int64), [stored[item]])
        one = model.items[item]
        if item in waiting:  # an earlier worker began the row, which does not know what waits
            one = _without(one, decode_waiting(waiting[item]))
        if problem := _item_problem(one, states):
            wrong.append(f"item {item:x}: {problem}")
    return wrong


def _without(item: ItemModel, events: np.ndarray) -> ItemModel:
    """Return an item that was not told of some events; each of them must be one of its own."""
    waits = Counter((int(e["source_offset"]), int(e["sign"]), float(e["time"])) for e in events)
    told = []
    for delta in item.deltas:
        what = (delta.offset, delta.sign, delta.time)
        if waits[what]:
            waits[what] -= 1
        else:
            told.append(delta)
    assert not waits.total(), f"{waits} wait, and nobody has told them"
    return ItemModel.of(told)


def _item_problem(item: ItemModel, states: ItemStates) -> str:
    head = states.head[0]
    for name in ("positives", "negatives", "neutrals", "first_time", "last_time", "ref_time"):
        if float(head[name]) != float(getattr(item, name)):
            return f"{name} is {head[name]}, expected {getattr(item, name)}"
    pairs = [
        (f"count by {half_life:g} s", float(states.counted["count"][0, h]), item.count(half_life))
        for h, half_life in enumerate(states.half_lives.tolist())
    ]
    short, long = states.half_lives[:2].tolist()
    pairs += [
        ("weights, short", float(head["weight_sum"][0]), item.weight(short)),
        ("weights, long", float(head["weight_sum"][1]), item.weight(long)),
        ("weights", float(head["weight_total"]), item.weight(float("inf"))),
    ]
    scenes = {int(one["scene"]): one["counts"] for one in states.scenes[0, : int(head["n_scenes"])]}
    if len(item.scenes()) <= SCENES_OF_AN_ITEM:
        if set(scenes) != item.scenes():
            return f"scenes are {sorted(scenes)}, expected {sorted(item.scenes())}"
        for scene, counts in scenes.items():
            pairs += [
                (f"scene {scene}", float(counts[0]), item.count(short, scene)),
                (f"scene {scene}", float(counts[1]), item.count(long, scene)),
            ]
    for name, found, expected in pairs:
        if abs(found - expected) > COUNTS * (1.0 + abs(expected)):
            return f"{name} is {found}, expected {expected}"
    return ""


def pauses(
    journal: Journal, lists: Mapping[tuple[int, int], Lists], partitions: int
) -> dict[str, list[dict[str, float]]]:
    """Return the longest time without a list in a partition after each action, by action.

    A gap belongs to the first action that begins in it, else to the one before it. It is `clean`
    if all workers were ready when the action began, and the next one waited for them again, or
    began much later. That does not depend on the length of the gap. After a broker that was killed
    alone, `after` is the time from when it listened again to the last partition's first list.
    """
    by_partition: dict[int, list[float]] = defaultdict(list)
    for (partition, _), made in lists.items():
        by_partition[partition] += made.times
    actions = journal.done
    longest: dict[int, float] = {}
    for partition in range(partitions):
        times = sorted(time for time in by_partition[partition] if time <= journal.ended)
        at = 0
        for start, end in itertools.pairwise(times):
            while at + 1 < len(actions) and actions[at + 1].began <= start:
                at += 1
            inside = at
            if inside + 1 < len(actions) and actions[inside + 1].began < end:
                inside += 1
            elif actions and actions[0].began > end:
                continue
            if not actions or any(start < moment < end for moment in journal.breaks):
                continue
            longest[inside] = max(longest.get(inside, 0.0), end - start)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number, action in enumerate(actions):
        after = actions[number + 1] if number + 1 < len(actions) else None
        alone = after is None or after.calm or after.began > action.began + LATER_SECONDS
        length = round(longest.get(number, 0.0), 2)
        pause = {"seconds": length, "clean": float(action.calm and alone)}
        until = journal.ended if after is None else after.began
        if action.back and pause["clean"]:
            firsts = [
                next((time for time in sorted(times) if time >= action.back), until)
                for times in by_partition.values()
            ]
            pause["after"] = round(max(firsts) - action.back, 2)
        found[action.action].append(pause)
    return dict(found)
