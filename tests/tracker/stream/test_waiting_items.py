"""Items that no catalogue has: rows only after several users, and only as long as they count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.paths import GOLDEN
from tests.plane_world import NOW, FakeRecord, WorkerState, small_artifact
from tracker.events.item_events import ITEM_EVENT, encode_block
from tracker.events.wire import hash_id
from tracker.items.counts import COUNT
from tracker.kernels.row_bytes import ITEM_PREFIX, WAITING_PREFIX
from tracker.stream.item_side import FADED_SECONDS
from tracker.stream.serving import make_serving
from tracker.stream.waiting_items import MOST_WAITING, decode_waiting, encode_waiting

DAY = 86400.0


class Teller:
    """A worker's items, which are told of events one block after another."""

    def __init__(self, worker: WorkerState) -> None:
        self.worker = worker
        self.offset = 0
        self.sent = 0

    def tell(self, *items: int, **fields: Any) -> None:
        """Tell of one event of each item."""
        events = np.zeros(len(items), ITEM_EVENT)
        events["item"], events["time"] = np.array(items, np.uint64), NOW
        events["weight"], events["sign"] = 1.0, 1
        events["source_offset"] = np.arange(self.offset, self.offset + len(items))
        for field, value in fields.items():
            events[field] = value
        self.offset += len(items)
        record = FakeRecord(self.sent, encode_block(events, 2))
        self.sent += 1
        self.worker.items.process([record], self.sent)

    def commit(self) -> None:
        """Commit the items."""
        self.worker.items.sweep()
        self.worker.commit(self.worker.items)

    def stored(self, prefix: bytes) -> list[bytes]:
        """Return the keys of the database with a prefix."""
        every: Any = self.worker.databases["items"].keys()
        return [key for key in every if key.startswith(prefix)]

    def positives(self, item: int) -> int | None:
        """Return the positive events of an item's row; None if it has none."""
        found = self.worker.items.find_item(item)
        return None if found is None else int(found[0].head["positives"][found[1]])


@pytest.fixture
def teller(tmp_path: Path) -> Iterator[Teller]:
    worker = WorkerState(tmp_path, capacity=100_000)
    yield Teller(worker)
    worker.close()


def test_made_up_ids_leave_nothing_behind_but_a_bounded_number_that_waits(teller: Teller) -> None:
    for start in range(0, 20_000, 5000):
        teller.tell(*range(start + 1, start + 5001))
        teller.commit()
    assert teller.stored(ITEM_PREFIX) == []
    assert len(teller.stored(WAITING_PREFIX)) == MOST_WAITING
    values: Any = teller.worker.databases["items"].items()
    assert sum(len(key) + len(value) for key, value in values) < 40_000


def test_item_of_several_users_has_all_that_it_was_told(teller: Teller) -> None:
    for n in range(5):
        teller.tell(77, time=NOW + n, recent=hash_id(f"i{n}"), n_recent=1)
        teller.commit()
        assert teller.positives(77) is None
    teller.worker.restart()
    teller.tell(77, 78, time=NOW + 5)
    teller.commit()
    assert teller.positives(77) == 6
    assert teller.positives(78) is None
    found = teller.worker.items.find_item(77)
    assert found is not None
    states, slot = found
    assert states.head["first_time"][slot] == NOW
    assert states.head["n_neighbours"][slot] == 5
    assert teller.worker.items.store.progress.sources == {0: 6}
    assert [key[-1] for key in teller.stored(WAITING_PREFIX)] == [78]
    teller.tell(77)  # it does not wait again
    assert teller.positives(77) == 7


def test_items_of_the_catalogue_never_wait(teller: Teller) -> None:
    teller.tell(hash_id("i1"), hash_id("made up"))
    assert teller.positives(hash_id("i1")) == 1
    assert teller.positives(hash_id("made up")) is None


def test_item_that_a_new_catalogue_has_begins_with_what_waited(teller: Teller) -> None:
    new = hash_id("i500")
    teller.tell(new, new)
    teller.commit()
    artifact = small_artifact(items=501)
    teller.worker.keeper.current = make_serving(artifact, teller.worker.settings)
    teller.worker.items.process([], teller.sent)
    teller.commit()
    assert teller.positives(new) == 2
    assert teller.stored(WAITING_PREFIX) == []


def test_retractions_take_out_what_waits_and_begin_no_row(teller: Teller) -> None:
    teller.tell(77, time=NOW + 1)
    teller.tell(77, 99, time=NOW + 1, sign=-1)
    for n in range(5):
        teller.tell(77, time=NOW + 2 + n)
    assert teller.positives(77) is None  # five are left
    assert teller.positives(99) is None
    teller.tell(77, time=NOW + 9)
    assert teller.positives(77) == 6
    for _ in range(200):  # by one user, to and fro
        teller.tell(88)
        teller.tell(88, sign=-1)
    teller.commit()
    assert teller.positives(88) is None
    (waiting,) = teller.worker.items.store.read([WAITING_PREFIX + (88).to_bytes(8, "big")])
    assert waiting is None or len(waiting) < 2000


def test_row_of_no_catalogue_ends_when_its_count_has_faded(teller: Teller) -> None:
    known = hash_id("i1")
    for n in range(8):
        teller.tell(77, known, time=NOW + n)
    teller.commit()
    assert len(teller.stored(ITEM_PREFIX)) == 2
    for days in (FADED_SECONDS / DAY - 1, 25.0, 40.0):  # 8 events fade below 1 in 30 days
        teller.worker.now = NOW + days * DAY
        teller.tell(known, time=teller.worker.now)
        teller.commit()
        teller.commit()
        assert (teller.positives(77) is None) == (days == 40.0)
    teller.tell(77, sign=-1)
    assert teller.positives(77) is None
    assert teller.positives(known) == 11


@pytest.mark.parametrize("damage", ["events", "a longer key", "the key of another item"])
def test_waiting_item_that_cannot_be_read_is_lost_with_a_line(
    damage: str, teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    teller.tell(77)
    teller.commit()
    (key,) = teller.stored(WAITING_PREFIX)
    database = teller.worker.databases["items"]
    row = database[key]
    del database[key]
    if damage == "events":
        database[key] = b"\x91\xc4\x03abc"
    else:
        database[key + b"\x01" if damage == "a longer key" else key[:-1] + b"\x01"] = row
    teller.worker.restart()
    assert "is lost" in caplog.text or "are lost" in caplog.text
    teller.commit()
    assert teller.stored(WAITING_PREFIX) == []


def test_items_of_many_users_outlast_made_up_ones(teller: Teller) -> None:
    teller.tell(77, 77)
    for start in range(1000, 6000, 500):
        teller.tell(*range(start, start + 500))
    teller.tell(77, 77, 77, 77)
    assert teller.positives(77) == 6


def test_rows_are_begun_one_by_one_as_in_any_chunks(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    items = (chance.integers(1, 40, 600)).tolist()
    rows = []
    for size in (1, 7, 600):
        worker = WorkerState(tmp_path / str(size))
        teller = Teller(worker)
        for at in range(0, 600, size):
            part = items[at : at + size]
            teller.tell(*part, time=[NOW + n for n in range(at, at + len(part))])
            if size == 7:
                teller.commit()
                worker.restart()
        found = [worker.items.find_item(item) for item in range(1, 40)]
        rows.append(
            [
                None if one is None else one[0].counted["count"][one[1], COUNT.never].item()
                for one in found
            ]
        )
        worker.close()
    assert rows[0] == rows[1] == rows[2]
    assert sum(one is not None for one in rows[0]) > 30


def golden_events() -> Any:
    events = np.zeros(3, ITEM_EVENT)
    events["item"], events["sign"] = 77, (1, 1, -1)
    events["time"] = 1_750_000_000.25 + np.arange(3)
    events["weight"], events["scene"], events["kind"] = (2.0, -0.5, 2.0), (5, 0, 5), (3, 4, 3)
    events["source_partition"], events["source_offset"] = 1, (10, 12, 2**40)
    events["n_recent"] = (2, 0, 1)
    events["recent"][0, :2], events["recent"][2, 0] = (2**63, 9), 11
    return events


def test_golden_record_of_a_waiting_item_is_read_and_written_the_same() -> None:
    record = (GOLDEN / "waiting_item_1.bin").read_bytes()
    assert decode_waiting(record).tobytes() == golden_events().tobytes()
    assert encode_waiting(golden_events()) == record
