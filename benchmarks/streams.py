"""Made-up streams of which the best possible list is known.

    python -m benchmarks.streams --list
    python -m benchmarks.streams news --to streams/news
    python -m benchmarks.streams news --to large --events 300000 --users 50000 --items 9000
    python -m benchmarks.streams plain --to mine --set taste=1 --set text=0.5

Each stream is drawn from a seed, event by event, from probabilities that are known. So the share of
events that the best list of ten would hold is known too: `truth.json` states it for the last tenth
of the time. Nothing here imports the product, so no mistake of it can hide in its own test.

How the probability of an item is made up:

1. Popularity: a fixed one, mixed with what was chosen within the trend's half-life by everybody.
2. Times the item's age: interest in it rises, and fades over its life span.
3. Times the user's taste for the item's subject, and the scene's preference for the item.
4. A share of the events follows from the user's last item instead; another share repeats what the
   user chose before. Without that share no user chooses an item twice.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

START = 1_750_000_000.0
"""Time of the first event at the earliest, in seconds."""

TEST_SHARE = 0.1
"""Share of the events, the last ones, for which the best list is stated."""

K = 10

SUBJECTS = {
    "cycling": "helmet saddle pedal brake tyre pump chain lock",
    "cooking": "saucepan knife oven whisk spatula grater apron wok",
    "gardening": "spade seed hose lawn compost rake greenhouse flower",
    "astronomy": "telescope planet comet galaxy eclipse orbit nebula satellite",
    "football": "goalkeeper penalty striker league stadium referee transfer derby",
    "music": "guitar piano violin drum concert album trumpet choir",
    "painting": "canvas brush gallery portrait palette sketch watercolour easel",
    "sailing": "anchor regatta harbour mast keel skipper buoy rudder",
    "finance": "dividend mortgage inflation bond pension tax bank budget",
    "medicine": "vaccine surgery nurse diabetes hospital allergy virus therapy",
    "cinema": "director thriller comedy actor western premiere sequel screenplay",
    "weather": "storm drought snow hurricane frost flood rainfall heatwave",
    "politics": "parliament minister election treaty senate campaign coalition veto",
    "computing": "keyboard software laptop server database browser compiler chip",
    "fashion": "jacket dress sandal scarf jeans handbag necklace coat",
    "animals": "elephant penguin wolf horse owl dolphin tiger rabbit",
    "baking": "bread cake croissant dough biscuit yeast pastry muffin",
    "trains": "locomotive railway platform timetable tunnel carriage station signal",
    "babies": "pram crib nappy pacifier rattle stroller bottle lullaby",
    "camping": "tent campfire lantern backpack compass hammock stove trail",
    "history": "castle emperor pharaoh viking crusade archive dynasty ruins",
    "chess": "gambit bishop checkmate opening rook tournament endgame pawn",
    "coffee": "espresso roaster latte grinder beans cappuccino filter barista",
    "aviation": "pilot airport propeller runway cockpit glider turbine helicopter",
}
"""Words by subject, for texts that say something."""

WORDS = tuple((subject, word) for subject, words in SUBJECTS.items() for word in words.split())
PER_SUBJECT = len(WORDS) // len(SUBJECTS)

SCENES, SCENE_SHARES = ("home", "search", "cart", "mail"), (0.4, 0.3, 0.2, 0.1)

FOLLOWERS = (0.4, 0.25, 0.15, 0.12, 0.08)
"""Shares of the items that follow an item, the most frequent first."""

NEW_PER_HALF_LIFE = 10.0
"""Events of a trend's half-life that choose by the fixed popularity, so that trends begin."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A made-up stream: its size, and a knob from 0 to 1 for each thing that drives a choice.

    Attributes:
        events: number of events.
        items: number of items, times what `catalogue` leaves of it.
        users: number of users; 0 for as many as `cold` says.
        days: time from the first event to the last.
        trend: share of the popularity that is what everybody chose lately.
        trend_minutes: half-life of that.
        life: 0 for items that are there for ever, 1 for a life span of two hours; between them the
            logarithm of the span is divided.
        taste: strength of the user's own subjects.
        text: share of the items whose text tells their subject; the other texts tell a wrong one.
        sequence: share of the events that follow from the user's last item, times .7.
        repetition: share of the events that repeat an earlier choice of the user, times .8.
        scene: strength of the scene's preference for items.
        drift: how often the user's subjects change, 1 for at every seventh event.
        cold: 0 for users of 30 events in the mean, 1 for 3.
        catalogue: 0 for a twentieth of the items, 1 for all.
        bursts: nights without events, and sudden crowds for one item.
        ratings: events are ratings, which tell how well the item meets the user's taste.
        rating_noise: 0 for ratings that tell all, 1 for ratings that tell nothing.
        seed: of everything.
    """

    events: int = 30_000
    items: int = 2000
    users: int = 0
    days: float = 60.0
    trend: float = 0.0
    trend_minutes: float = 1440.0
    life: float = 0.0
    taste: float = 0.0
    text: float = 1.0
    sequence: float = 0.0
    repetition: float = 0.0
    scene: float = 0.0
    drift: float = 0.0
    cold: float = 0.0
    catalogue: float = 1.0
    bursts: float = 0.0
    ratings: bool = False
    rating_noise: float = 0.0
    seed: int = 0

    @property
    def span(self) -> float:
        """Return the seconds from the first event to the last."""
        return self.days * DAY

    @property
    def item_count(self) -> int:
        """Return the number of items."""
        return max(20, round(self.items * math.pow(20.0, self.catalogue - 1.0)))

    @property
    def user_count(self) -> int:
        """Return the number of users."""
        return self.users or max(20, round(self.events / (30.0 * 10.0**-self.cold)))

    @property
    def life_seconds(self) -> float:
        """Return the life span of an item; infinity if items are there for ever."""
        return self.span ** (1.0 - self.life) * (2 * HOUR) ** self.life if self.life else math.inf


_NEWS = Stream(
    days=3.0, trend=0.9, trend_minutes=10.0, life=0.75, sequence=0.3, text=0.0, cold=0.7, bursts=0.3
)

CORNERS: dict[str, Stream] = {
    "plain": Stream(),
    "trend-10-minutes": Stream(days=3.0, trend=1.0, trend_minutes=10.0),
    "trend-1-hour": Stream(days=10.0, trend=1.0, trend_minutes=60.0),
    "trend-1-day": Stream(trend=1.0),
    "trend-1-month": Stream(days=360.0, trend=1.0, trend_minutes=43_200.0),
    "life-hours": Stream(days=3.0, life=0.8),
    "life-days": Stream(days=60.0, life=0.4),
    "taste": Stream(taste=1.0),
    "taste-text-says-nothing": Stream(taste=1.0, text=0.0),
    "taste-half-the-texts": Stream(taste=1.0, text=0.5),
    "taste-drift": Stream(taste=1.0, drift=1.0),
    "taste-cold-users": Stream(taste=1.0, cold=1.0),
    "taste-trend": Stream(taste=0.7, trend=0.7, trend_minutes=720.0),
    "taste-new-items": Stream(taste=0.8, life=0.4),
    "sequence": Stream(sequence=1.0),
    "sequence-taste": Stream(sequence=0.5, taste=0.7),
    "repetition": Stream(repetition=1.0, taste=0.3),
    "repetition-trend": Stream(repetition=0.5, trend=0.7),
    "scene": Stream(scene=1.0),
    "scene-taste-repetition": Stream(scene=0.6, taste=0.5, repetition=0.5),
    "small-catalogue": Stream(catalogue=0.0, taste=0.5, trend=0.5),
    "bursts": Stream(days=10.0, bursts=1.0, trend=0.7, trend_minutes=30.0),
    "cold-trend": Stream(cold=1.0, trend=0.8, trend_minutes=240.0),
    "ratings": Stream(ratings=True, taste=0.6, rating_noise=0.2),
    "ratings-noise": Stream(ratings=True, taste=0.6, rating_noise=1.0),
    "news": _NEWS,
    "everything": Stream(
        days=20.0, trend=0.5, trend_minutes=120.0, life=0.3, taste=0.5, text=0.8, sequence=0.3,
        repetition=0.2, scene=0.4, drift=0.3, cold=0.5, bursts=0.5,
    ),
}  # fmt: skip
"""Streams by name: each turns one knob up, or several that meet in practice."""

NEWS_LARGE = replace(_NEWS, events=300_000, users=50_000, items=9000, days=14.0)
"""News in the size of a real site's log."""


@dataclass(frozen=True, slots=True)
class Made:
    """A stream: its items, its events, and the best that can be reached.

    Attributes:
        stream: the knobs.
        items: `item_id`, `title` and `categories` of each.
        events: as the product reads them, in order of time.
        truth: the figures of the best list, for the events after the cut.
    """

    stream: Stream
    items: list[dict[str, Any]]
    events: list[dict[str, Any]]
    truth: dict[str, float]


class Choice(NamedTuple):
    """One event as it is drawn, for whoever watches.

    Attributes:
        user, now, scene: who comes, when (seconds), and where.
        own: the user's earlier items, the latest last.
        item: the one that is chosen.
        cells: (N,) what each item is about, a place in WORDS.
        odds: (N,) the probability of each item; None if the best list is not stated here.
    """

    user: int
    now: float
    scene: int
    own: list[int]
    item: int
    cells: Array
    odds: Array | None


def make(stream: Stream, watch: Callable[[Choice], None] | None = None) -> Made:
    """Draw a stream; `watch` is shown each event before it counts.

    1. Draw the items, and when each is born.
    2. Draw who comes when, and in which scene.
    3. Event by event, make up the probabilities, draw an item and count it.
    4. Sum up what the best lists hold after the cut.
    """
    rng = np.random.default_rng([stream.seed, 7])
    world = _Items(stream, rng)  # 1.
    flashes = _Flashes(stream, rng)
    users, times, scenes = _visits(stream, flashes, rng)  # 2.
    tastes = _Tastes(stream, stream.user_count, rng)
    share, repeated = 0.7 * stream.sequence, 0.8 * stream.repetition
    histories: list[list[int]] = [[] for _ in range(stream.user_count)]
    cut = times[min(len(times) - 1, int((1.0 - TEST_SHARE) * len(times)))]
    gains = 1.0 / np.log2(np.arange(K) + 2.0)
    sums = np.zeros(4)
    chosen, values = np.zeros(len(times), np.int64), np.zeros(len(times))
    draws = rng.random(len(times))
    for e in range(len(times)):  # 3.
        user, now, own = int(users[e]), float(times[e]), histories[int(users[e])]
        low, high = world.there(now)
        weights = world.popularity(now, low, high)
        flashes.add(now, low, weights)
        if stream.taste:
            weights *= tastes.factors(user)[world.cells[low:high]]
        if stream.scene:
            weights *= world.by_scene[scenes[e], low:high]
        if not repeated:
            seen = [i - low for i in own if low <= i < high]
            if len(seen) < high - low:
                weights[seen] = 0.0
        odds = weights / weights.sum()
        if own and (share or repeated):
            odds = _mixed(world, odds, own, low, share, repeated)
        place = min(int(np.searchsorted(odds.cumsum(), draws[e])), high - low - 1)
        item = low + place
        is_target = now >= cut and bool(own)
        if watch is not None:
            every = np.zeros(len(world.cells))
            every[low:high] = odds
            known = every if is_target else None
            watch(Choice(user, now, int(scenes[e]), own, item, world.cells, known))
        if is_target:
            best = best_list(odds)
            sums += (1.0, odds[best].sum(), odds[best] @ gains[: len(best)], place in best)
        chosen[e] = item
        values[e] = tastes.rating(user, int(world.cells[item])) if stream.ratings else 0.0
        world.choose(item)
        own.append(item)
        tastes.after(user)
    targets, hits, gain, realised = (float(one) for one in sums)  # 4.
    truth = {
        "targets": targets,
        "hit_rate_at_10": hits / max(targets, 1.0),
        "ndcg_at_10": gain / max(targets, 1.0),
        "hit_rate_at_10_drawn": realised / max(targets, 1.0),
    }
    events = _events(stream, users, times, scenes, chosen, values)
    return Made(stream, world.described(rng), events, truth)


class _Items:
    """The items of a stream, ascending by birth, and how popular each is at any time."""

    def __init__(self, stream: Stream, rng: np.random.Generator) -> None:
        count = stream.item_count
        self.stream = stream
        self.cells = rng.integers(0, len(WORDS), count)
        self.fixed = np.exp(rng.normal(0.0, 1.0, count))
        self.by_scene = np.exp(2.5 * stream.scene * rng.normal(0.0, 1.0, (len(SCENES), count)))
        life = stream.life_seconds
        self.births = np.full(count, -math.inf)
        self.ages = np.full(count, math.inf)
        if stream.life:
            self.births = START + np.sort(rng.uniform(-life, stream.span, count))
            # Nine tenths of the interest lie within 3.9 times the age of most interest.
            self.ages = life / 3.9 * np.exp(rng.normal(0.0, 0.4, count))
        reach = count if not stream.life else max(6, round(0.5 * count * life / stream.span))
        away = rng.integers(1, max(2, min(reach, count)), (count, len(FOLLOWERS)))
        sign = np.where(rng.random(away.shape) < 0.5, -1, 1)
        places: Array = np.arange(count)[:, None]
        self.followers = np.clip(places + sign * away, 0, count - 1)
        if not stream.life:
            self.followers = (places + away) % count
        self.half_life = stream.trend_minutes * MINUTE
        within = stream.events / stream.span * self.half_life / math.log(2.0)
        self.new = NEW_PER_HALF_LIFE / (NEW_PER_HALF_LIFE + within)
        self.counts = np.zeros(count)
        self.counted_at = START

    def there(self, now: float) -> tuple[int, int]:
        """Return the range of the items that are born and not yet forgotten."""
        if not self.stream.life:
            return 0, len(self.births)
        oldest = np.searchsorted(self.births, now - 4.0 * self.stream.life_seconds)
        high = int(np.searchsorted(self.births, now))
        low = min(int(oldest), max(0, high - K - 5))
        return low, max(high, low + 1)

    def popularity(self, now: float, low: int, high: int) -> Array:
        """Return the weights of a range of items (n,), the same for everybody."""
        self.counts *= 2.0 ** (-(now - self.counted_at) / self.half_life)
        self.counted_at = now
        fixed = self.fixed[low:high]
        aged = fixed
        if self.stream.life:
            age = np.maximum(now - self.births[low:high], 0.0) / self.ages[low:high]
            curve = (age + 0.05) * np.exp(1.0 - age)
            aged = fixed * curve
        weights: Array = aged / aged.sum()
        counts = self.counts[low:high]
        if self.stream.life:
            counts = counts * np.exp(-age)
        total = counts.sum()
        if self.stream.trend and total > 0.0:
            lately = counts * ((1.0 - self.new) / total) + self.new * weights
            weights = (1.0 - self.stream.trend) * weights + self.stream.trend * lately
        return weights

    def choose(self, item: int) -> None:
        """Count a choice, at the time of the latest `popularity`."""
        self.counts[item] += 1.0

    def described(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Return the items as lines of a catalogue."""
        tells = rng.random(len(self.cells)) < self.stream.text
        told = np.where(tells, self.cells, rng.integers(0, len(WORDS), len(self.cells)))
        numbers = rng.permutation(len(self.cells))
        found = []
        for i, cell in enumerate(told.tolist()):
            subject, word = WORDS[cell]
            title = f"{word.capitalize()} for {subject}, no. {numbers[i] + 1}"
            found.append({"item_id": f"i{i}", "title": title, "categories": [subject.title()]})
        return found


class _Tastes:
    """The subjects that each user likes, and how they change."""

    LIKED, CHANGES = 2, 1 / 7
    WORD, SUBJECT = 6.0, 3.5

    def __init__(self, stream: Stream, users: int, rng: np.random.Generator) -> None:
        self.stream, self.rng = stream, rng
        self.liked = rng.integers(0, len(SUBJECTS), (users, self.LIKED))
        self.words = rng.integers(0, PER_SUBJECT, (users, self.LIKED, 2))
        self.cached: dict[int, Array] = {}

    def likings(self, user: int) -> Array:
        """Return how well each word of each subject meets the user's taste, (W,) from 0 to 1."""
        likings = np.zeros((len(SUBJECTS), PER_SUBJECT))
        for subject, words in zip(self.liked[user], self.words[user], strict=True):
            likings[subject] = np.maximum(likings[subject], self.SUBJECT / self.WORD)
            likings[subject, words] = 1.0
        return likings.ravel()

    def factors(self, user: int) -> Array:
        """Return what the weight of each word's items is multiplied by, (W,)."""
        factors = self.cached.get(user)
        if factors is None:
            factors = np.exp(self.stream.taste * self.WORD * self.likings(user))
            self.cached[user] = factors
        return factors

    def rating(self, user: int, cell: int) -> float:
        """Draw a rating from 1 to 5 of an item on a word."""
        noise = self.stream.rating_noise
        value = 1.5 + 3.0 * self.likings(user)[cell]
        value = (1.0 - noise) * value + noise * self.rng.uniform(1.0, 5.0)
        return float(np.clip(round(value + self.rng.normal(0.0, 0.4)), 1, 5))

    def after(self, user: int) -> None:
        """Let a subject change after an event, as often as the drift says."""
        if self.stream.drift and self.rng.random() < self.stream.drift * self.CHANGES:
            which = self.rng.integers(0, self.LIKED)
            self.liked[user, which] = self.rng.integers(0, len(SUBJECTS))
            self.words[user, which] = self.rng.integers(0, PER_SUBJECT, 2)
            self.cached.pop(user, None)


class _Flashes:
    """Sudden crowds: for a while one item is chosen far more often than its popularity says."""

    SECONDS, PER_DAY, STRENGTH, COME = 30 * MINUTE, 4.0, 0.5, 12.0

    def __init__(self, stream: Stream, rng: np.random.Generator) -> None:
        count = round(self.PER_DAY * stream.days * stream.bursts)
        self.begins = np.sort(START + rng.uniform(0.0, stream.span, count))
        self.which = rng.random(count)
        self.items: dict[int, int] = {}
        self.strength = self.STRENGTH * stream.bursts

    def add(self, now: float, low: int, weights: Array) -> None:
        """Raise the weight of the item of the latest crowd, if it still lasts."""
        at = int(np.searchsorted(self.begins, now)) - 1
        if at < 0 or now - self.begins[at] >= self.SECONDS:
            return
        item = self.items.setdefault(at, low + int(self.which[at] * len(weights)))
        if low <= item < low + len(weights):
            weights[item - low] += self.strength * weights.sum()


def _mixed(
    world: _Items, odds: Array, own: list[int], low: int, share: float, repeated: float
) -> Array:
    """Return the odds with the shares that follow the last item, and that repeat earlier ones."""
    others = np.zeros(len(odds))
    given = 0.0
    if share:
        follows = np.zeros(len(odds))
        for item, part in zip(world.followers[own[-1]].tolist(), FOLLOWERS, strict=True):
            if low <= item < low + len(odds) and odds[item - low] > 0.0:
                follows[item - low] += part
        if (total := follows.sum()) > 0.0:
            others += follows * (share / total)
            given += share
    if repeated:
        again = np.zeros(len(odds))
        for back, item in enumerate(reversed(own[-50:])):
            if low <= item < low + len(odds):
                again[item - low] += 0.93**back
        part = min(repeated, 1.0 - given)
        if (total := again.sum()) > 0.0:
            others += again * (part / total)
            given += part
    return odds * (1.0 - given) + others


def best_list(odds: Array) -> Array:
    """Return the places of the ten highest odds, the highest first."""
    if len(odds) <= K:
        return np.argsort(-odds)
    top = np.argpartition(-odds, K)[:K]
    best: Array = top[np.argsort(-odds[top])]
    return best


def _visits(
    stream: Stream, flashes: _Flashes, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Draw user, time and scene of each event, in order of time.

    1. Users differ in how much they do; each comes for some time of the whole, in sessions.
    2. Fewer sessions begin by night, and more in a crowd, as far as `bursts` says.
    """
    count, users = stream.events, stream.user_count
    # 1. Divide the events among users, and those of a user into sessions.
    activity = np.exp(rng.normal(0.0, 0.8, users))
    of = np.sort(rng.choice(users, count, p=activity / activity.sum()))
    begins_session = (rng.random(count) < 1 / 3) | np.r_[True, np.diff(of) > 0]
    session = np.cumsum(begins_session) - 1
    # 2. Draw when a session begins, from the density of the time.
    steps = max(1, round(stream.span / (10 * MINUTE)))
    at = (np.arange(steps) + 0.5) * stream.span / steps
    density = 1.0 + 0.95 * stream.bursts * np.sin(2 * np.pi * at / DAY)
    for begin in flashes.begins - START:
        density[(at >= begin) & (at < begin + flashes.SECONDS)] += flashes.COME * stream.bursts
    reached = np.r_[0.0, np.cumsum(density)] / density.sum()
    first = rng.uniform(-0.3, 1.0, users)
    last = np.minimum(first + rng.exponential(0.5, users) + 0.02, 1.0)
    first = np.clip(first, 0.0, 0.98)
    last = np.maximum(last, first + 0.02)
    whose = of[begins_session]
    place = first[whose] + (last - first)[whose] * rng.random(len(whose))
    begin = np.interp(place, reached, np.linspace(0.0, stream.span, steps + 1))
    gaps = np.where(begins_session, 0.0, rng.exponential(90.0, count) + 1.0)
    within = np.cumsum(gaps)
    within -= within[begins_session][session]
    times = START + begin[session] + within
    scenes = rng.choice(len(SCENES), len(whose), p=SCENE_SHARES)[session]
    moved = rng.random(count) < 0.2
    scenes = np.where(moved, rng.choice(len(SCENES), count, p=SCENE_SHARES), scenes)
    order = np.argsort(times, kind="stable")
    return of[order], np.round(times[order], 3), scenes[order]


def _events(
    stream: Stream, users: Array, times: Array, scenes: Array, chosen: Array, values: Array
) -> list[dict[str, Any]]:
    """Return the events as lines of a log."""
    found = []
    columns = zip(*(c.tolist() for c in (users, times, scenes, chosen, values)), strict=True)
    for user, time, scene, item, value in columns:
        event: dict[str, Any] = {
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "kind": "rate" if stream.ratings else "click",
            "timestamp": time,
        }
        if stream.ratings:
            event["value"] = value
        if stream.scene:
            event["scene"] = SCENES[scene]
        found.append(event)
    return found


def write(made: Made, folder: Path) -> None:
    """Write `items.jsonl`, `events.jsonl` and `truth.json`, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_lines(folder / "items.jsonl", made.items)
    _write_lines(folder / "events.jsonl", made.events)
    truth = {"stream": asdict(made.stream), "truth": made.truth}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def with_settings(stream: Stream, settings: Iterable[str]) -> Stream:
    """Return a stream with settings such as `taste=0.5` changed.

    Raises:
        ValueError: a setting is not one of the stream's.

    >>> with_settings(Stream(), ["taste=0.5", "events=10"]).events
    10
    """
    kinds = {field.name: type(getattr(stream, field.name)) for field in fields(stream)}
    changed: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in kinds:
            raise ValueError(f"no setting {name!r}; there are {', '.join(kinds)}")
        changed[name] = value in ("1", "true") if kinds[name] is bool else kinds[name](value)
    return replace(stream, **changed)


def main() -> None:
    """Write one stream as told by the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=[*CORNERS, "news-large"])
    parser.add_argument("--to", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    for name in ("events", "users", "items", "seed"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--list", action="store_true", help="print the streams and their knobs")
    given = parser.parse_args()
    if given.list or given.name is None or given.to is None:
        usual = asdict(Stream())
        for name, stream in CORNERS.items():
            knobs = {key: value for key, value in asdict(stream).items() if value != usual[key]}
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in knobs.items()))
        return
    stream = NEWS_LARGE if given.name == "news-large" else CORNERS[given.name]
    sizes = {
        name: value
        for name in ("events", "users", "items", "seed")
        if (value := getattr(given, name)) is not None
    }
    made = make(with_settings(replace(stream, **sizes), given.set))
    write(made, given.to)
    print(json.dumps(made.truth))


if __name__ == "__main__":
    main()
