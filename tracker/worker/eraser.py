"""Eraser: takes the bytes of forgotten users out of the databases on this disk."""

import asyncio
import logging
import shutil
import time
from collections.abc import Mapping
from typing import Any

from faust.stores.rocksdb import RocksDBOptions

from tracker.explained import first_line
from tracker.feeds.background import OnDeath, PeriodicTask, log_death
from tracker.kernels.row_bytes import FORGOTTEN_PREFIX
from tracker.store.database import erase_deleted, forgotten_rows

log = logging.getLogger(__name__)

MANIFEST_BYTES = 1
"""RocksDB's list of files is written again from this size on, so with each change of the files: it
names the first and last keys of former files too."""

KEPT_LOGS = 2
"""Files of RocksDB's own log, which may name keys too."""

LOG_BYTES = 1024 * 1024

MEMORY_FILTER_SHARE = 0.02
"""Share of a write buffer for a filter of its keys. Most rows that are looked for are those of new
users and items: without it, each look searches the buffers, which costs three times as much."""

UNUSED_SECONDS = 24 * 3600.0
"""Time after which the database of a partition that this worker no longer has is deleted."""


class ErasableOptions(RocksDBOptions):
    """Options of a database that forgets what was deleted, once its files are rewritten."""

    def as_options(self) -> Any:
        """Return the options as RocksDB takes them."""
        options = super().as_options()
        options.set_max_manifest_file_size(MANIFEST_BYTES)
        options.set_keep_log_file_num(KEPT_LOGS)
        options.set_max_log_file_size(LOG_BYTES)
        options.set_max_compaction_bytes(2**50)  # never in parts, whose bounds would be logged
        options.set_memtable_whole_key_filtering(True)
        options.set_memtable_prefix_bloom_ratio(MEMORY_FILTER_SHARE)
        return options


class Eraser(PeriodicTask):
    """Rewrites databases of users after a forgetting, and deletes databases no longer in use.

    A deleted row stays in RocksDB's files until they are rewritten, which may take for ever. So
    every database of users with a new hash of a forgotten user is rewritten, of standbys as well;
    in a thread, one at a time.

    Args:
        seconds: interval between two looks.
        tables: Faust's tables by name.
        on_death: called if the task ends by itself.
    """

    def __init__(
        self, seconds: float, tables: Mapping[str, Any], on_death: OnDeath = log_death
    ) -> None:
        super().__init__("the erasing of forgotten users", seconds, on_death)
        self._tables = tables
        self._rewritten: dict[int, dict[bytes, bytes]] = {}

    async def look(self) -> None:
        """Rewrite the databases that have a new hash, and delete those not in use."""
        databases = self._tables["users"].data._dbs
        for number in [number for number in self._rewritten if number not in databases]:
            del self._rewritten[number]
        for number, database in list(databases.items()):
            try:
                rows = await asyncio.to_thread(forgotten_rows, database, FORGOTTEN_PREFIX)
                before = self._rewritten.get(number, {})
                if any(before.get(key) != value for key, value in rows.items()):
                    await asyncio.to_thread(erase_deleted, database)
                self._rewritten[number] = rows
            except Exception as error:  # closed meanwhile, or the disk is full: at the next look
                log.warning("users of partition %d: cannot erase: %s", number, first_line(error))
        self.delete_unused(time.time())

    def delete_unused(self, now: float) -> int:
        """Delete the databases of partitions that this worker has no more; return how many.

        On the event loop, so that no rebalance opens one meanwhile.

        Args:
            now: wall time, in seconds.
        """
        deleted = 0
        for table in self._tables.values():
            store = table.data
            in_use = {store.partition_path(number) for number in store._dbs}
            for path in store.partition_path(0).parent.glob(f"{store.basename}-*.db"):
                if path in in_use or path.stat().st_mtime > now - UNUSED_SECONDS:
                    continue
                log.info("%s: deleting the database of a partition that others have now", path)
                shutil.rmtree(path, ignore_errors=True)
                deleted += 1
        return deleted
