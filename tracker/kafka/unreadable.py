"""UnreadableRows: rows of a changelog that a reader passes over, counted and said once."""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

MOST_LINES = 20
"""Maximum number of lines about the rows of one table; further rows are counted only."""

REMEDIES = {
    "damaged": "its checksum or length does not agree; the next commit of its owner replaces it",
    "newer": "a newer version of the tracker wrote it; run that version here too",
    "older": "an older version of the tracker wrote it; the next commit of its owner replaces it",
    "key": "its key is not one that the tracker writes; let only workers write to the topic",
}
"""Problems of a row, and what is said of each."""


class UnreadableRows:
    """Counts the rows of one table that cannot be read, and says each once.

    Args:
        table: name of the table, `users` or `items`.
        count: called with the table and the problem of each row.
    """

    def __init__(
        self, table: str, count: Callable[[str, str], object] = lambda table, problem: None
    ) -> None:
        self._table = table
        self._count = count
        self._lines: set[tuple[str, int, int, bytes | None]] = set()

    def report(
        self, topic: str, partition: int, offset: int | None, key: bytes | None, problem: str
    ) -> None:
        """Count a row, and say it unless it was said before.

        Args:
            topic: the changelog.
            partition: its partition.
            offset: offset of the row; None for one in the database.
            key: key of the row.
            problem: one of REMEDIES.
        """
        self._count(self._table, problem)
        line = (topic, partition, -1 if offset is None else offset, key)
        if line in self._lines or len(self._lines) >= MOST_LINES:
            return
        self._lines.add(line)
        more = ""
        if len(self._lines) == MOST_LINES:
            more = "; further rows are counted in tracker_unreadable_rows_total only"
        log.error(
            "%s-%d: passed over the row %s with key %s: %s: %s%s",
            topic, partition, "on disk" if offset is None else f"at offset {offset}",
            key_text(key), problem, REMEDIES[problem], more,
        )  # fmt: skip


def key_text(key: bytes | None) -> str:
    r"""Return a key of a changelog as text: its prefix, then the rest, as hexadecimal if need be.

    >>> key_text(b"uada"), key_text(b"i\x00\xff"), key_text(None)
    ('uada', 'i00ff', 'none')
    """
    if key is None:
        return "none"
    rest = key[1:65]
    is_text = rest.isascii() and rest.decode("ascii").isprintable()
    return key[:1].decode("latin-1") + (rest.decode("ascii") if is_text else rest.hex())
