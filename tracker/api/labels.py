"""Labels of a user's interests, distinct within the user."""

import re
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import LAYOUT
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, UserStates

LEAST_LETTERS = 3
"""Letters of a word that tells interests apart at least."""

_WORD = re.compile(rf"[^\W\d_]{{{LEAST_LETTERS},}}")


class Labels:
    """Makes labels of interests: the label of the most typical item, and a word if another has it.

    The word is the one that the items of the interest have, and those of the others with the same
    label have not; it comes from the items' texts. The strongest interest keeps the plain label. An
    interest without a label is named by such a word alone.

    Args:
        artifact: items, and the folder that holds their texts.
    """

    def __init__(self, artifact: Artifact) -> None:
        self._items = artifact.vectors
        self._path = artifact.path / LAYOUT.texts
        self._texts: list[str] | None = None

    def of(self, states: UserStates, slot: int, strengths: NDArray[np.float32]) -> list[str]:
        """Return a label for each interest of a user, by its place.

        Args:
            states: the arena.
            slot: of the user.
            strengths: (S,) of the interests: the strongest of one label keeps it.
        """
        items = self._items
        count = int(states.head[slot]["n_slots"])
        medoids = items.row_of(np.ascontiguousarray(states.interest_heads["medoid"][slot, :count]))
        labels = [items.label(row) if row >= 0 else "" for row in medoids.tolist()]
        order = np.argsort(-strengths[:count], kind="stable").tolist()
        names: set[str] = set()
        words: list[Counter[str]] | None = None
        for place in order:
            label = labels[place]
            if label and label not in names:
                names.add(label)
                continue
            if words is None:
                words = self._words(states, slot, count, medoids)
            labels[place] = self._distinct(label, place, words, names)
            names.add(labels[place])
        return labels

    def _distinct(
        self,
        label: str,
        place: int,
        words: Sequence[Counter[str]],
        names: set[str],
    ) -> str:
        """Return a label with a word that no other interest of the user has."""
        others: Counter[str] = Counter()
        for other, counts in enumerate(words):
            if other != place:
                others.update(counts.keys())
        own = words[place]
        for word in sorted(own, key=lambda word: (others[word], -own[word], word)):
            if word.casefold() in label.casefold():
                continue
            text = f"{label}: {word}" if label else word
            if text not in names:
                return text
        label, number = label or "?", 2
        while f"{label} {number}" in names:
            number += 1
        return f"{label} {number}"

    def _words(
        self, states: UserStates, slot: int, count: int, medoids: NDArray[np.int64]
    ) -> list[Counter[str]]:
        """Count the words of each interest's items: its medoid, and those of the ring near it."""
        items = self._items
        means = states.interest_means[slot, :count].astype(np.float32)
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        rows: list[set[int]] = [{row} if row >= 0 else set() for row in medoids.tolist()]
        ring = states.ring[slot, : int(states.head[slot]["n_ring"])]
        in_sums = (ring["flags"] & (RING_IN_SUMS | RING_RETRACTED)) == RING_IN_SUMS
        for row in items.row_of(np.ascontiguousarray(ring["item"][in_sums])).tolist():
            if row >= 0 and count:
                rows[int(np.argmax(means @ items.vectors[row]))].add(row)
        return [
            Counter(word for row in own for word in set(_WORD.findall(self._text(row))))
            for own in rows
        ]

    def _text(self, row: int) -> str:
        """Return an item's text; the file is read once."""
        if self._texts is None:
            try:
                self._texts = msgspec.json.decode(self._path.read_bytes(), type=list[str])
            except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._texts = []
        if row < len(self._texts):
            return self._texts[row]
        return self._items.ids[row]
