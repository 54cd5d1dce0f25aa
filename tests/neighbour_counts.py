"""Neighbours counted without any bound, in plain Python, and how much of it the item states keep.

Of an item with partners, the overlap at k is the share of its min(k, partners) strongest kept
neighbours that are among as many strongest of the count without a bound (a tie with the last of
them counts as being among them); strength is the count decayed with 10 days. The share of their
summed strength that the kept ones have says the same without the lottery of near ties. Items are
weighed by their positive events.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tracker.items.states import ItemStates

TEN_DAYS = 864000.0
POSITION_DECAY = 0.8
"""Written here once more, so that a changed constant in the program does not go unseen."""


@dataclass
class Uncapped:
    """Counts of every pair: `strength[item][other]` decayed to the time 0, `pairs` whole ones."""

    strength: dict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    pairs: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    events: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    origin: float = 0.0

    def add(self, item_events: np.ndarray) -> "Uncapped":
        """Count item events in any order, retractions against their events."""
        if not self.events and len(item_events):
            self.origin = float(item_events["time"].max())
        for event in item_events[item_events["weight"] > 0.0]:
            item, sign = int(event["item"]), int(event["sign"])
            self.events[item] += sign
            left = 2.0 ** ((float(event["time"]) - self.origin) / TEN_DAYS)
            for position, other in enumerate(event["recent"][: event["n_recent"]].tolist()):
                if other == item:
                    continue
                gain = sign * POSITION_DECAY**position * left
                self.strength[item][other] = self.strength[item].get(other, 0.0) + gain
                self.pairs[item, other] += sign
        return self

    def of(self, item: int) -> dict[int, float]:
        """Return the partners of an item that are still counted, with their strengths."""
        return {
            other: strength
            for other, strength in self.strength.get(item, {}).items()
            if self.pairs[item, other] > 0
        }

    def overlap(self, states: ItemStates, slots: dict[int, int], k: int) -> float:
        """Return the mean overlap at k of item states with this count; `slots` by item."""
        return self._mean(states, slots, k)[0]

    def strength_kept(self, states: ItemStates, slots: dict[int, int], k: int) -> float:
        """Return the mean share of the strength of the k strongest that the k kept ones have."""
        return self._mean(states, slots, k)[1]

    def _mean(self, states: ItemStates, slots: dict[int, int], k: int) -> tuple[float, float]:
        found, weights = [(1.0, 1.0)], [0.0]
        for item, events in self.events.items():
            exact = self.of(item)
            if not exact or events <= 0:
                continue
            best = sorted(exact.values(), reverse=True)[:k]
            kept = _strongest(states, slots[item], len(best)) if item in slots else []
            among = sum(exact.get(other, 0.0) >= best[-1] * (1.0 - 1e-5) for other in kept)
            strength = sum(exact.get(other, 0.0) for other in kept)
            found.append((among / len(best), strength / sum(best)))
            weights.append(events)
        shares = np.average(found, axis=0, weights=weights) if sum(weights) else np.ones(2)
        return float(shares[0]), float(shares[1])


def _strongest(states: ItemStates, slot: int, count: int) -> list[int]:
    entries = states.neighbours[slot, : int(states.head[slot]["n_neighbours"])]
    order: NDArray[np.int64] = np.argsort(-entries["together_lately"], kind="stable")
    return [int(item) for item in entries["item"][order[:count]]]
