"""ItemView: item rows by catalogue row, neighbours both ways, what is trending."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_world import START, SmallCatalogue, catalogue
from tracker.events.item_events import ITEM_EVENT
from tracker.items import near_lists as near_lists_module
from tracker.items import view as item_view_module
from tracker.items.config import FORMER, ItemCounts
from tracker.items.counts import COUNT, apply_item_events
from tracker.items.layout import NEIGHBOURS
from tracker.items.near_lists import SPARE, NearList
from tracker.items.states import ItemStateFormatError, ItemStates
from tracker.items.view import ItemColumns, ItemView


class World:
    """Forty items with states, numbered like their catalogue rows, and a view of them."""

    def __init__(self, items: SmallCatalogue | None = None) -> None:
        self.items = items or catalogue()
        self.states = ItemStates(60)
        self.view = ItemView(self.items)

    def choose(
        self,
        row: int,
        time: float = START,
        recent: Any = (),
        scene: int = 0,
        weight: float = 1.0,
        sign: int = 1,
    ) -> None:
        event = np.zeros(1, ITEM_EVENT)
        event["item"], event["time"], event["weight"], event["sign"] = (
            1001 + row,
            time,
            weight,
            sign,
        )
        event["scene"], event["n_recent"] = scene, len(recent)
        event["recent"][0, : len(recent)] = np.array(recent, np.uint64) + 1001
        apply_item_events(self.states, np.array([row]), event)

    def show(self, *rows: int) -> int:
        hashes = np.array([1001 + row for row in rows], np.uint64)
        return self.view.update(self.states.pack(np.array(rows)), hashes)

    def near(self, row: int) -> dict[int, list[float]]:
        n = self.view.neighbours.before.n[row]
        return dict(
            zip(
                self.view.neighbours.before.rows[row, :n].tolist(),
                self.view.neighbours.before.counts[row, :n].tolist(),
                strict=True,
            )
        )

    def back(self, row: int) -> dict[int, list[float]]:
        n = self.view.neighbours.after.n[row]
        return dict(
            zip(
                self.view.neighbours.after.rows[row, :n].tolist(),
                self.view.neighbours.after.counts[row, :n].tolist(),
                strict=True,
            )
        )


def test_counts_stand_at_the_catalogue_row_of_the_item() -> None:
    world = World()
    world.choose(3, scene=9)
    world.choose(3, START + 86400.0)
    assert world.show(3) == 1
    view = world.view
    assert view.columns.counts[3, 0] == pytest.approx(1.5)
    assert view.columns.log2_counts[3, 0] == pytest.approx(np.log2(1.5))
    assert (view.columns.first_times[3], view.columns.last_times[3]) == (START, START + 86400.0)
    assert view.columns.ref_times[3] == START + 86400.0
    assert view.columns.scenes[3].tolist() == [9, 0, 0, 0]
    assert view.columns.scene_counts[3, 0] == pytest.approx([0.5, 2**-0.1])
    assert np.isneginf(view.columns.log2_counts[4]).all()
    assert np.isnan(view.columns.first_times[4])


def test_weights_and_tallies_stand_at_the_catalogue_row_of_the_item() -> None:
    world = World()
    world.choose(3)
    world.choose(3, START + 86400.0, weight=-0.5)
    world.choose(3, START + 86400.0, weight=0.0)
    world.show(3)
    view = world.view
    assert view.columns.weight_sums[3] == pytest.approx([0.5 - 0.5, 2**-0.1 - 0.5, 0.5])
    assert view.columns.tallies[3].tolist() == [1.0, 1.0, 1.0]
    assert not view.columns.weight_sums[4].any()


def test_what_one_update_read_does_not_come_back_with_a_later_one() -> None:
    world = World()
    world.choose(3, scene=9, recent=[7, 8])
    world.choose(4)
    world.choose(5, scene=6, recent=[1, 2])
    world.show(3, 5)
    world.show(4)
    fresh = World()
    fresh.states = world.states
    for row in (3, 5, 4):
        fresh.show(row)
    for one, other in zip(world.view.columns, fresh.view.columns, strict=True):
        np.testing.assert_array_equal(one, other)
    assert world.near(4) == {} == world.back(4)
    world.view.update([None], np.array([1003 + 1], np.uint64))
    assert world.near(3) == {}
    assert np.isnan(world.view.columns.first_times[3])
    assert not world.view.columns.scenes[3].any()


def test_neighbours_stand_in_both_lists() -> None:
    world = World()
    world.choose(3, recent=[7, 8])
    world.choose(3, recent=[8])
    world.choose(5, recent=[8])
    world.show(3, 5)
    assert world.near(3) == {7: [1.0, 1.0, 1.0], 8: pytest.approx([1.8, 1.8, 1.0])}
    assert world.back(8) == {3: pytest.approx([1.8, 1.8, 1.0]), 5: [1.0, 1.0, 1.0]}
    assert world.back(7) == {3: [1.0, 1.0, 1.0]}


def test_a_neighbour_that_left_the_list_leaves_the_reverse_list() -> None:
    world = World()
    world.choose(3, recent=[7, 8])
    world.choose(5, recent=[8])
    world.show(3, 5)
    world.states.clear(np.array([3]))
    world.choose(3, recent=[9])
    world.show(3)
    assert world.near(3).keys() == {9}
    assert world.back(7) == {}
    assert world.back(8).keys() == {5}
    assert world.back(9).keys() == {3}


def test_a_tombstone_forgets_the_item() -> None:
    world = World()
    world.choose(3, recent=[7])
    world.show(3)
    assert world.view.update([None], np.array([1004], np.uint64)) == 1
    assert not world.view.columns.counts[3].any()
    assert np.isnan(world.view.columns.first_times[3])
    assert world.back(7) == {}


def test_items_not_in_the_catalogue_are_passed_over() -> None:
    world = World()
    world.choose(45, recent=[3])
    world.choose(3, recent=[45, 4])
    assert world.show(45, 3) == 1
    assert world.near(3) == {4: pytest.approx([0.8, 0.8, 0.0])}
    assert world.back(4).keys() == {3}
    assert world.back(3) == {}


def test_decayed_counts_of_the_reverse_list_follow_to_a_percent() -> None:
    world = World()
    world.choose(3, recent=[7])
    world.show(3)
    for day in range(1, 6):
        world.choose(3, START + 86400.0 * day, recent=[8])
        world.show(3)
    expected = 2 ** (-5 / 10)
    assert world.near(3)[7][1] == pytest.approx(expected)
    assert world.back(7)[3][1] == pytest.approx(expected, rel=0.01)


def test_a_full_reverse_list_keeps_the_strongest() -> None:
    items = catalogue(items=100)
    world = World(items)
    world.states = ItemStates(100)
    for row in range(1, 100):
        for _ in range(1 + row // 50):
            world.choose(row, recent=[0])
    world.show(*range(1, 100))
    assert world.view.neighbours.after.n[0] == NEIGHBOURS + SPARE
    assert {row for row, counts in world.back(0).items() if counts[0] == 2.0} == set(range(50, 100))


def test_an_item_that_was_crowded_out_of_a_reverse_list_comes_back_when_another_leaves() -> None:
    items = catalogue(items=100)
    world = World(items)
    world.states = ItemStates(100)
    for row in range(1, 90):
        for _ in range(1 + (row < 80)):
            world.choose(row, recent=[0])
        world.show(row)
    for gone in range(1, 26):  # of the stronger ones
        world.view.update([None], items.hashes[[gone]])
    anew = World(items)
    anew.states = world.states
    anew.show(*range(26, 90))
    assert list(world.back(0).items())[:NEIGHBOURS] == list(anew.back(0).items())[:NEIGHBOURS]
    assert len(world.back(0)) == NEIGHBOURS


def test_trending_rows_are_the_most_chosen_live_ones_best_first() -> None:
    items = catalogue()
    items.live = 30
    world = World(items)
    for row, times in {35: 9, 4: 3, 6: 2, 2: 2, 9: 1}.items():
        for _ in range(times):
            world.choose(row, scene=row % 2)
    world.choose(20, START - 5 * 86400.0)
    world.show(35, 4, 6, 2, 9, 20)
    assert world.view.trend_rows(START, 0, 4).tolist() == [4, 2, 6, 9]
    assert world.view.trend_rows(START, 0, 40).tolist() == [4, 2, 6, 9, 20]
    assert world.view.trend_rows(START, 1, 4).tolist() == [9]
    assert world.view.trend_rows(START, 77, 4).tolist() == []
    assert world.view.trend_rows(START + 100 * 86400.0, 0, 4).tolist() == []


def test_new_rows_are_the_live_ones_first_chosen_latest() -> None:
    items = catalogue()
    items.live = 30
    world = World(items)
    for row, time in {35: 9.0, 4: 3.0, 6: 2.0, 2: 2.0, 9: 1.0}.items():
        world.choose(row, START + time)
    world.choose(9, START + 50.0)
    world.choose(8, START + 60.0, weight=-1.0)
    world.show(35, 4, 6, 2, 9, 8)
    assert world.view.new_rows(START, 3).tolist() == [4, 2, 6]
    assert world.view.new_rows(START, 40).tolist() == [4, 2, 6, 9]


def test_an_item_whose_events_were_all_taken_back_is_not_new() -> None:
    world = World()
    world.choose(3)
    world.choose(5)
    world.choose(3, sign=-1)
    world.show(3, 5)
    assert world.view.new_rows(START, 3).tolist() == [5]


def test_an_older_burst_is_ranked_by_what_decay_leaves_of_it() -> None:
    world = World()
    for _ in range(6):
        world.choose(1, START)
    for _ in range(2):
        world.choose(2, START + 2 * 86400.0)
    world.show(1, 2)
    assert world.view.trend_rows(START + 2 * 86400.0, 0, 5).tolist() == [2, 1]


def test_trending_rows_are_made_anew_after_an_update_and_a_quarter_of_a_second() -> None:
    world = World()
    world.choose(1)
    world.show(1)
    assert world.view.trend_rows(START, 0, 3).tolist() == [1]
    world.choose(2)
    world.choose(2)
    world.show(2)
    assert world.view.trend_rows(START + 0.1, 0, 3).tolist() == [1]
    assert world.view.trend_rows(START + 0.3, 0, 3).tolist() == [2, 1]


def test_many_scenes_asked_for_do_not_fill_the_memory() -> None:
    world = World()
    for scene in range(1000):
        world.view.trend_rows(START, scene, 1)
    assert len(world.view._trends) <= 257


def test_mixed_trends_take_turns_between_half_lives_and_name_each_row_once() -> None:
    world = World()
    scales = ItemCounts(trend_seconds=(600.0, 86400.0))
    world.view = ItemView(world.items, scales)
    for row, count in {1: 9, 2: 8, 3: 7}.items():
        for _ in range(count):
            world.choose(row, START - 7200.0)
    for row, count in {7: 3, 8: 2, 1: 1}.items():
        for _ in range(count):
            world.choose(row, START)
    world.show(1, 2, 3, 7, 8)
    by_minutes = world.view.trend_rows(START, 0, 3, scales.seconds.index(600.0)).tolist()
    assert by_minutes == [7, 8, 1]
    assert world.view.trend_rows(START, 0, 3).tolist() == [1, 2, 3]
    assert world.view.mixed_trend_rows(START, 4).tolist() == [7, 1, 8, 2]


def test_a_view_reads_rows_of_other_half_lives() -> None:
    world = World()
    world.states = ItemStates(60, FORMER)
    world.choose(3)
    world.choose(3, START + 3600.0)
    assert world.show(3) == 1
    counts = dict(zip(world.view.scales.seconds, world.view.columns.counts[3], strict=True))
    assert counts[86400.0] == pytest.approx(1.0 + 2.0 ** (-1 / 24))
    assert 1.0 <= counts[600.0] <= counts[3600.0] <= counts[86400.0]


def test_log_counts_are_decayed_to_now() -> None:
    world = World()
    for _ in range(3):
        world.choose(5)
    world.show(5)
    found = world.view.log_counts(np.array([[5, 6], [-1, 5]]), START + 86400.0)
    assert found.shape == (2, 2, len(world.view.scales.seconds))
    assert found[0, 0, COUNT.short] == pytest.approx(np.log1p(1.5))
    assert found[1, 1, COUNT.never] == pytest.approx(np.log1p(3.0))
    assert not found[0, 1].any()
    assert not found[1, 0].any()


def test_a_damaged_row_is_refused_and_changes_nothing() -> None:
    world = World()
    world.choose(3)
    row = world.states.pack(np.array([3]))[0]
    with pytest.raises(ItemStateFormatError, match="item row 1 of 2"):
        world.view.update([row, row[:-8]], np.array([1004, 1005], np.uint64))
    assert not world.view.columns.counts.any()


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build() -> World:
        world = World()
        random = np.random.default_rng(0)
        for i in range(30):
            recent = random.choice(40, 3, replace=False).tolist()
            world.choose(int(random.integers(8)), START + 1e4 * i, recent, scene=i % 3)
            if i % 5 == 0:
                world.show(*range(8))
        world.show(*range(8))
        return world

    native = build()
    for module in (item_view_module, near_lists_module):
        for name, kernel in list(vars(module).items()):
            if hasattr(kernel, "py_func"):
                monkeypatch.setattr(module, name, kernel.py_func)
    plain = build()
    for name in ("before", "after"):
        lists = getattr(plain.view.neighbours, name), getattr(native.view.neighbours, name)
        for field, one, other in zip(NearList._fields, *lists, strict=True):
            n = lists[0].n[:, None] > np.arange(lists[0].rows.shape[1])
            used = n if field != "n" else slice(None)
            assert np.allclose(one[used], other[used]), (name, field)
    columns = zip(ItemColumns._fields, plain.view.columns, native.view.columns, strict=True)
    for field, one, other in columns:
        assert np.allclose(one, other, equal_nan=True), field
    assert (
        plain.view.trend_rows(START, 0, 9).tolist() == native.view.trend_rows(START, 0, 9).tolist()
    )
    assert plain.view.new_rows(START, 9).tolist() == native.view.new_rows(START, 9).tolist()
    rows = np.arange(9)
    assert plain.view.log_counts(rows, START) == pytest.approx(native.view.log_counts(rows, START))


def resident_bytes() -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(text.partition("RssAnon:")[2].split()[0])


def test_lists_of_a_large_catalogue_take_memory_only_for_items_in_use() -> None:
    before, items = resident_bytes(), 400_000
    lists = NearList.of_size(items, 64)
    assert (lists.rows.shape, lists.counts.shape) == ((items, 64), (items, 64, 3))
    lists.counts[::1000] = 1.0  # 400 items, none near another
    assert lists.counts[1000].sum() == 192.0
    assert resident_bytes() - before < 20_000_000
