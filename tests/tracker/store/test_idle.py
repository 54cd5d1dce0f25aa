"""IdleSweep: states without an event for the stated time end, and only those."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plane_world import NOW, Bench, Source, like
from tracker.events.wire import hash_id
from tracker.store import idle

DAY = 86400.0

Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def build(**arguments: Any) -> Bench:
        made.append(Bench(tmp_path / str(len(made)), **arguments))
        return made[-1]

    yield build
    for bench in made:
        bench.close()


def sweep(bench: Bench) -> None:
    bench.users.sweep()
    bench.commit()


def kept(bench: Bench) -> set[str]:
    return {key[1:].decode() for key, _ in bench.users.store.scan(b"u")}


def test_user_who_was_idle_for_too_long_ends_with_all_rows(make: Make) -> None:
    bench = make(state_idle_days=30.0)
    bench.send(*(like("old", n % 40, time=NOW - 40 * DAY) for n in range(30)))
    bench.send(like("young", 1, time=NOW - 20 * DAY))
    bench.commit()
    assert [key for key, _ in bench.users.store.scan(b"s")] == [b"sold"]
    bench.send(like("now", 2, time=NOW))
    sweep(bench)
    assert kept(bench) == {"young", "now"}
    assert bench.users.store.scan(b"s") == []
    assert bench.count("deleted_states", table="users") == 1
    bench.restart()
    assert bench.users.find_user("old") is None


def test_nothing_ends_where_no_time_is_stated(make: Make) -> None:
    bench = make()
    bench.send(like("old", 1, time=NOW - 4000 * DAY), like("now", 1))
    bench.commit()
    sweep(bench)
    assert kept(bench) == {"old", "now"}


def test_user_who_comes_back_beside_the_deletion_stays(make: Make) -> None:
    bench = make(state_idle_days=30.0)
    bench.send(like("old", 1, time=NOW - 40 * DAY))
    bench.commit()
    bench.send(like("now", 2, time=NOW))
    bench.users.sweep()
    bench.send(like("old", 3, time=NOW))
    bench.commit()
    assert kept(bench) == {"old", "now"}
    bench.restart()
    assert bench.head("old", "last_time") == NOW


def test_row_in_memory_that_is_newer_than_the_database_stays(make: Make) -> None:
    bench = make(state_idle_days=30.0)
    bench.send(like("old", 1, time=NOW - 40 * DAY))
    bench.commit()
    bench.send(like("old", 2, time=NOW))
    bench.users.sweep()
    assert bench.count("deleted_states", table="users") == 0
    bench.commit()
    assert kept(bench) == {"old"}


def test_sweep_goes_round_in_parts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "SWEEP_RECORDS", 2)
    bench = make(state_idle_days=30.0)
    bench.users.sweep()  # nothing there yet
    bench.send(*(like(f"u{n}", n, time=NOW - 40 * DAY) for n in range(5)))
    bench.commit()
    bench.send(like("now", 1, time=NOW))
    left = []
    for _ in range(4):
        sweep(bench)
        left.append(len(kept(bench)))
    assert left == [4, 2, 1, 1]
    assert kept(bench) == {"now"}


def test_idle_items_end_too(make: Make) -> None:
    bench = make(state_idle_days=30.0)
    bench.send(like("a", 1, time=NOW - 40 * DAY), like("a", 3, time=NOW))
    values = [record.value for record in bench.commit()]
    records = [Source(at, value) for at, value in enumerate(values)]
    bench.items.process(records, len(records))
    bench.commit(bench.items)
    bench.items.sweep()
    bench.commit(bench.items)
    assert bench.items.find_item(hash_id("i1")) is None
    assert bench.items.find_item(hash_id("i3")) is not None
    assert bench.count("deleted_states", table="items") == 1
