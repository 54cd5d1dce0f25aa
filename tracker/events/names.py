"""Names that look like a known one: for messages that ask what was meant."""

from collections.abc import Collection

CLOSE_LETTERS = 2
"""A name is close to another if at most this many letters have to be changed."""


def nearest(name: str, names: Collection[str], most: int = CLOSE_LETTERS) -> str | None:
    """Return the known name with the fewest letters to change, None if `most` are not enough.

    To change is to add, to leave out, to replace, or to swap with the next; case does not count.

    >>> nearest("scen", ["scene", "value"]), nearest("eventId", ["event_id"])
    ('scene', 'event_id')
    >>> nearest("colour", ["scene", "value"]) is None
    True
    """
    best, fewest = None, most + 1
    for candidate in names:
        changes = letters_apart(name, candidate, fewest)
        if changes < fewest:
            best, fewest = candidate, changes
    return best


def letters_apart(one: str, other: str, most: int) -> int:
    """Return how many letters have to be changed, at most `most`; case does not count.

    Source: the optimal string alignment distance, Boytsov 2011, "Indexing methods for approximate
    dictionary searching", section 2.1.

    >>> letters_apart("Clcik", "click", 5), letters_apart("a", "unlike", 3)
    (1, 3)
    """
    if abs(len(one) - len(other)) >= most:
        return most
    one, other = one.lower(), other.lower()
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, target in enumerate(other, 1):
            changes = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != target))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == target:
                changes = min(changes, last[j - 2] + 1)
            row.append(changes)
    return min(row[-1], most)
