"""What of the best possible lists can be learned from a made-up stream.

    OMP_NUM_THREADS=1 python -m benchmarks.learnable --result learnable

The best possible list of `benchmarks.streams` knows everything: what each user likes, and what
follows each item. Here a learner knows how streams are made, with every knob and every strength,
and what each item is about; the rest it has to learn from the same events as a recommender. It
divides an event roughly among its causes, so a better learner may find more.

Left out are streams with what it does not know: life spans, crowds, tastes that change, and texts
that say nothing. It does not read ratings.
"""

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.results import add_option, store
from benchmarks.streams import (
    CORNERS,
    FOLLOWERS,
    PER_SUBJECT,
    SCENES,
    SUBJECTS,
    WORDS,
    Array,
    Choice,
    Stream,
    best_list,
    make,
)

LIKELY = 30
"""Likings of a subject, the most likely first, that are paired with every other one."""

FIXED_PRIOR, SCENE_PRIOR = 0.6, 0.2
"""Events that an item has before its first one, in all scenes and in one of them."""


def names() -> list[str]:
    """Return the streams whose knobs the learner knows."""
    return [
        name
        for name, one in CORNERS.items()
        if not (one.life or one.bursts or one.drift) and (one.text == 1.0 or not one.taste)
    ]


class Learner:
    """One who knows how a stream is made, and learns the rest from its events.

    Attributes:
        sums: number of targets; sum of the probabilities of the items in its lists; their hits.
    """

    def __init__(self, stream: Stream) -> None:
        self.sums = np.zeros(3)
        self._stream = stream
        self._popularity = _Popularity(stream)
        self._tastes = _Tastes(stream)
        self._follows = _Follows(stream)

    def __call__(self, choice: Choice) -> None:
        """Make the list of a target and compare it; learn from every event."""
        if choice.odds is not None:
            found = best_list(self._odds(choice))
            self.sums += (1.0, choice.odds[found].sum(), choice.item in found)
        self._learn(choice)

    def _odds(self, choice: Choice) -> Array:
        """Return the probability (N,) of each item, as far as it is known."""
        stream, own = self._stream, choice.own
        fixed, lately = self._popularity.parts(choice)
        weights: Array = fixed + lately
        if stream.taste:
            weights = weights * self._tastes.factors(choice, weights)[choice.cells]
        unseen = np.ones(len(weights), np.bool_)
        if not stream.repetition and len(set(own)) < len(unseen):
            unseen[own] = False
        odds: Array = weights * unseen
        odds /= odds.sum()
        if not own:
            return odds
        follows = self._follows.shares(own[-1]) * unseen
        again = _again(stream, own, len(odds))
        rest = 1.0 - self._follows.share - again.sum()
        mixed: Array = odds * rest + follows + again
        return mixed

    def _learn(self, choice: Choice) -> None:
        """Count an event for each cause, by the probability that it was the cause."""
        item, own = choice.item, choice.own
        fixed, lately = (part[item] for part in self._popularity.parts(choice))
        chosen, followed, repeated = 1.0, 0.0, 0.0
        if own:
            followed = self._follows.shares(own[-1])[item] if self._stream.sequence else 0.0
            repeated = _again(self._stream, own, len(choice.cells))[item]
            chosen = 1.0 - self._follows.share - 0.8 * self._stream.repetition
        by_interest = chosen * (fixed + lately)
        interest = by_interest / (by_interest + followed + repeated)
        self._popularity.learn(choice, interest * fixed / (fixed + lately))
        self._tastes.learn(choice, interest)
        if own and self._stream.sequence:
            self._follows.learn(own[-1], item)


class _Popularity:
    """The popularity that is the same for all users."""

    def __init__(self, stream: Stream) -> None:
        count = stream.item_count
        self._stream = stream
        self._fixed = np.zeros(count)
        self._by_scene = np.zeros((len(SCENES), count))
        self._lately, self._counted_at = np.zeros(count), -math.inf
        within = stream.events / stream.span * stream.trend_minutes * 60.0 / math.log(2.0)
        self._new = 10.0 / (10.0 + within)

    def parts(self, choice: Choice) -> tuple[Array, Array]:
        """Return how popular items are by themselves, and by what was chosen lately, (N,) each."""
        stream = self._stream
        fixed = self._fixed + FIXED_PRIOR
        fixed /= fixed.sum()
        if stream.scene:
            fixed = self._by_scene[choice.scene] + SCENE_PRIOR * fixed * len(fixed)
            fixed /= fixed.sum()
        total = self._lately.sum()
        if not stream.trend or total <= 0.0:
            return fixed, np.zeros(len(fixed))
        share = stream.trend * (1.0 - self._new)
        return (1.0 - share) * fixed, self._lately * (share / total)

    def learn(self, choice: Choice, fixed: float) -> None:
        """Count an event, `fixed` of it for what the item is by itself."""
        half_life = self._stream.trend_minutes * 60.0
        self._lately *= 2.0 ** (-(choice.now - self._counted_at) / half_life)
        self._counted_at = choice.now
        self._lately[choice.item] += 1.0
        self._fixed[choice.item] += fixed
        self._by_scene[choice.scene, choice.item] += fixed


class _Tastes:
    """The posterior of what each user likes: two subjects, and up to two words of each."""

    WORD, SUBJECT = 6.0, 3.5

    def __init__(self, stream: Stream) -> None:
        pairs = [(a, b) for a in range(PER_SUBJECT) for b in range(a, PER_SUBJECT)]
        self._subjects = np.repeat(np.arange(len(SUBJECTS)), len(pairs))
        self._logs = np.zeros((len(self._subjects), len(WORDS)))  # (L, W), L likings
        for row, subject in enumerate(self._subjects.tolist()):
            first = subject * PER_SUBJECT
            self._logs[row, first : first + PER_SUBJECT] = stream.taste * self.SUBJECT
            for word in pairs[row % len(pairs)]:
                self._logs[row, first + word] = stream.taste * self.WORD
        self._more = np.exp(self._logs) - 1.0
        self._prior = np.log([1.0 if a == b else 2.0 for a, b in pairs] * len(SUBJECTS))
        self._chosen = np.zeros((stream.user_count, len(WORDS)))

    def factors(self, choice: Choice, weights: Array) -> Array:
        """Return the mean of what a taste multiplies the items of each word by, (W,).

        Divided by the sum of all weights, which depends on the taste too.
        """
        by_word = np.bincount(choice.cells, weights, len(WORDS))
        chosen = self._chosen[choice.user]
        gained = self._more @ by_word
        alone = self._logs @ chosen + self._prior
        likely = np.argsort(chosen.sum() * np.log(by_word.sum() + gained) - alone)[:LIKELY]
        sums = by_word.sum() + gained[likely][:, None] + gained  # (LIKELY, L)
        logs = alone[likely][:, None] + alone - chosen.sum() * np.log(sums)
        logs[self._subjects[likely][:, None] == self._subjects] = -np.inf
        shares = np.exp(logs - logs.max()) / sums
        factors: Array = (
            shares.sum() + shares.sum(axis=1) @ self._more[likely] + shares.sum(axis=0) @ self._more
        )
        return factors

    def learn(self, choice: Choice, share: float) -> None:
        """Count an event, as far as it was chosen out of interest."""
        self._chosen[choice.user, choice.cells[choice.item]] += share


class _Follows:
    """The posterior of what follows what: five items, each with a share that is known."""

    def __init__(self, stream: Stream) -> None:
        self.share = 0.7 * stream.sequence
        self._items = stream.item_count
        self._counts = np.ones(self._items)
        self._after: dict[int, dict[int, int]] = {}
        self._rates = self.share * np.array([0.0, *FOLLOWERS])[:, None]  # (6, 1)
        prior = np.array([self._items - len(FOLLOWERS), *[1] * len(FOLLOWERS)])
        self._prior = np.log(prior / self._items)[:, None]

    def shares(self, item: int) -> Array:
        """Return the mean share (N,) of the events after an item that follow from it, by item."""
        if not self.share:
            return np.zeros(self._items)
        counts = np.zeros(self._items)
        after = self._after.get(item, {})
        counts[list(after)] = list(after.values())
        by_chance = (1.0 - self.share) * self._counts / self._counts.sum()
        rates = self._rates + by_chance  # (6, N)
        logs = counts * np.log(rates) - counts.sum() * rates + self._prior
        chances = np.exp(logs - logs.max(axis=0))
        shares: Array = (chances * self._rates).sum(axis=0) / chances.sum(axis=0)
        return shares

    def learn(self, item: int, following: int) -> None:
        """Count what followed an item."""
        after = self._after.setdefault(item, {})
        after[following] = after.get(following, 0) + 1
        self._counts[following] += 1.0


def _again(stream: Stream, own: Sequence[int], items: int) -> Array:
    """Return the shares (N,) of the events that repeat an earlier choice, as a stream has them."""
    again = np.zeros(items)
    for back, item in enumerate(reversed(own[-50:])):
        again[item] += 0.93**back
    total = again.sum()
    return again * (0.8 * stream.repetition / total) if total > 0.0 else again


def measure(stream: Stream) -> dict[str, float]:
    """Return HR@10 of the best list and of the learner's: the mean chance, and as it was drawn."""
    learner = Learner(stream)
    truth = make(stream, learner).truth
    targets, chance, hits = learner.sums.tolist()
    return {
        "targets": targets,
        "best": truth["hit_rate_at_10"],
        "best_drawn": truth["hit_rate_at_10_drawn"],
        "learned": chance / max(targets, 1.0),
        "learned_drawn": hits / max(targets, 1.0),
    }


def main() -> None:
    """Measure the streams that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(names())}")
    add_option(parser)
    given = parser.parse_args()
    if unknown := set(given.names) - set(names()):
        parser.error(f"no stream {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    found: dict[str, Any] = {}
    for name in given.names or names():
        found[name] = measure(CORNERS[name])
        print(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in found[name].items()))
    store(given.result, {"streams": found})


if __name__ == "__main__":
    main()
