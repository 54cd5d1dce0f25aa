"""ChangelogDatabases: the databases of Faust's tables, filled from their changelogs."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from faust.types import TP

from tracker.explained import ONCE
from tracker.kafka.unreadable import UnreadableRows
from tracker.store.database import (
    FAUST_PREFIX,
    empty_if_older,
    note_time,
    offset_of,
    write_records,
)

log = logging.getLogger(__name__)

NOTE_SECONDS = 60.0
"""Time between two notes that a database has all of its changelog."""


class Rules(Protocol):
    """Settings of a transport that are about changelogs."""

    tombstone_seconds: float
    count_unreadable: Callable[[str, str], object]


class ChangelogDatabases:
    """Writes the records of changelogs in bulk to the databases of their partitions.

    Args:
        tables: returns Faust's tables.
        rules: how long a changelog keeps the mark of a deletion, and what counts a record that
            cannot be a row.
    """

    def __init__(self, tables: Callable[[], Any], rules: Rules) -> None:
        self._tables = tables
        self._rules = rules
        self._noted: dict[TP, float] = {}  # when a database had all of its changelog
        self._unreadable: dict[str, UnreadableRows] = {}

    def has(self, tp: TP) -> bool:
        """Return whether a partition is one of a changelog."""
        return tp.topic in self._tables()._changelogs

    def write(self, tp: TP, records: Sequence[Any]) -> None:
        """Write records of a changelog, in order; those that cannot be rows are counted."""
        rows = ((record.key, record.value) for record in records if self._is_row(record))
        appended = (records[-1].timestamp or 0) / 1000.0
        write_records(self._database(tp), rows, records[-1].offset, min(appended, time.time()))

    def note_whole(self, tp: TP) -> None:
        """Note that a database has all of its changelog now; it is written once a minute."""
        now = time.time()
        if now - self._noted.get(tp, 0.0) > NOTE_SECONDS:
            self._noted[tp] = now
            note_time(self._database(tp), now)

    def empty_old(self, tps: Collection[TP]) -> None:
        """Empty the databases that may have missed the mark of a deletion; all is read again."""
        limit = time.time() - self._rules.tombstone_seconds
        for tp in tps:
            if self.has(tp) and empty_if_older(self._database(tp), limit):
                log.warning(
                    "%s-%d: the database on disk was away for longer than delete.retention.ms of"
                    " the changelog, so it is read again from the begin", tp.topic, tp.partition,
                    extra=ONCE,
                )  # fmt: skip

    def is_past(self, tp: TP, end: int | None) -> bool:
        """Return whether the database of a changelog has reached more than its end."""
        return self.has(tp) and offset_of(self._database(tp)) >= (end or 0)

    def _database(self, tp: TP) -> Any:
        return self._tables()._changelogs[tp.topic].data._db_for_partition(tp.partition)

    def _is_row(self, record: Any) -> bool:
        """Return whether a record of a changelog can be a row: it has a key, not one of Faust."""
        if record.key and not record.key.startswith(FAUST_PREFIX):
            return True
        table = self._tables()._changelogs[record.topic].name
        count = self._rules.count_unreadable
        reporter = self._unreadable.setdefault(table, UnreadableRows(table, count))
        reporter.report(record.topic, record.partition, record.offset, record.key, "key")
        return False
