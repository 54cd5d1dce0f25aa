"""Databases lose the bytes of forgotten users, and those of former partitions are deleted."""

import asyncio
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tracker.kernels.row_bytes import FORGOTTEN_PREFIX
from tracker.store.database import write_records
from tracker.worker.eraser import UNUSED_SECONDS, ErasableOptions, Eraser


class Tables(dict[str, Any]):
    """A table of users with a database of partition 0, as Faust keeps it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        options = ErasableOptions(use_rocksdict=True, write_buffer_size=1 << 20)
        self.database = options.open(self.path(0))
        store = SimpleNamespace(_dbs={0: self.database}, basename="users", partition_path=self.path)
        super().__init__(users=SimpleNamespace(data=store))

    def path(self, number: int) -> Path:
        return self.folder / f"users-{number}.db"


def bytes_in(folder: Path, text: bytes) -> list[str]:
    return [path.name for path in sorted(folder.rglob("*")) if text in path.read_bytes()]


def test_no_file_of_a_database_has_the_id_after_the_next_look(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    database = tables.database
    rows = [(b"u" + name, b"row of " + name) for name in (b"aaa-ada-z9", b"bob")]
    write_records(database, rows, 1)
    database.flush()
    assert any(name.endswith(".sst") for name in bytes_in(tables.path(0), b"ada-z9"))
    write_records(database, [(b"uaaa-ada-z9", None), (FORGOTTEN_PREFIX + b"salt", b"[1,2]")], 2)
    eraser = Eraser(1.0, tables)
    asyncio.run(eraser.look())
    assert bytes_in(tables.path(0), b"ada-z9") == []
    assert database.get(b"ubob") == b"row of bob"
    files = sorted(path.name for path in tables.path(0).glob("*.sst"))
    asyncio.run(eraser.look())  # no new hash: nothing is rewritten
    assert sorted(path.name for path in tables.path(0).glob("*.sst")) == files
    database.close()


def test_database_of_a_former_partition_is_deleted_after_a_day(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    for number in (0, 1, 2):
        tables.path(number).mkdir(exist_ok=True)
        (tables.path(number) / "file").write_text("row")
    now = time.time()
    for number in (0, 1):
        os.utime(tables.path(number), (now - UNUSED_SECONDS - 60,) * 2)
    eraser = Eraser(1.0, tables)
    assert eraser.delete_unused(now) == 1
    assert [number for number in (0, 1, 2) if tables.path(number).exists()] == [0, 2]
    tables.database.close()
