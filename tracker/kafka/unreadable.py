"""UnreadableRows: rows of a changelog that a reader passes over, counted and said once."""

import logging
from collections.abc import Callable, Mapping

from tracker.kernels.row_bytes import key_text

log = logging.getLogger(__name__)

MOST_LINES = 20
"""Maximum number of lines about the rows of one table; further rows are counted only."""

REMEDIES = {
    "damaged": "its checksum or length does not agree; the next commit of its owner replaces it",
    "newer": "a newer version of the tracker wrote it; run that version here too",
    "layout": "it was written with other dimensions than those of the artifact in use; the next"
    " commit of its owner replaces it",
    "older": "an older version of the tracker wrote it; the next commit of its owner replaces it",
    "key": "its key is not one that the tracker writes; let only workers write to the topic",
}
"""Problems of a row, and what is said of each."""


class UnreadableRows:
    """Counts the rows of one table that cannot be read, and says each once.

    Args:
        table: name of the table, `users` or `items`.
        count: called with the table and the problem of each row.
        remedies: what is said of each problem.
        user_ids: whether keys with ids of users are said.
    """

    def __init__(
        self,
        table: str,
        count: Callable[[str, str], object] = lambda table, problem: None,
        remedies: Mapping[str, str] = REMEDIES,
        user_ids: bool = False,
    ) -> None:
        self._user_ids = user_ids
        self._table = table
        self._remedies = remedies
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
            key_text(key, self._user_ids), problem, self._remedies[problem], more,
        )  # fmt: skip
