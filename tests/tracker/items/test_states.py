"""Item rows: counts exact in any order and under retraction, bounded lists, bytes."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paths import GOLDEN
from tracker.events.item_events import ITEM_EVENT, RECENTS
from tracker.items import counts as item_counts
from tracker.items import counts as neighbours_module
from tracker.items import layout as item_bytes
from tracker.items import states as item_state
from tracker.items.config import FORMER, ItemCounts
from tracker.items.counts import COUNT, apply_item_events
from tracker.items.layout import NEIGHBOURS, ROW_BYTES_MAX, SCENES
from tracker.items.states import ItemStateFormatError, ItemStates

START = 1.7e9
deterministic = settings(deadline=None, derandomize=True, max_examples=60)


def events_of(*rows: dict[str, Any]) -> np.ndarray:
    events = np.zeros(len(rows), ITEM_EVENT)
    for event, row in zip(events, rows, strict=True):
        event["item"], event["time"], event["weight"] = 5, START, 1.0
        event["sign"], event["kind"] = 1, 7
        for name, value in row.items():
            if name == "recent":
                event["n_recent"] = len(value)
                event["recent"][: len(value)] = value
            else:
                event[name] = value
    return events


def states_after(events: np.ndarray, capacity: int = 2) -> ItemStates:
    states = ItemStates(capacity)
    apply_item_events(states, (events["item"] % 2).astype(np.int64), events)
    return states


item_events: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    item=st.integers(4, 5),
    time=st.integers(0, 10**7).map(lambda seconds: START + seconds),
    weight=st.sampled_from([1.0, 5.0, -1.0, 0.0]),
    scene=st.integers(0, SCENES),
    recent=st.lists(st.integers(10, 40), max_size=RECENTS, unique=True),
)
histories = st.lists(item_events, min_size=1, max_size=30)


def assert_same(found: ItemStates, expected: ItemStates) -> None:
    """Compare two arenas by meaning, decayed numbers to 1e-6, neighbours (float32) to 1e-5."""
    for name in ("item", "positives", "negatives", "neutrals"):
        assert found.head[name].tolist() == expected.head[name].tolist(), name
    assert np.allclose(found.columns.counts, expected.columns.counts, rtol=1e-6, atol=1e-12)
    for name in ("weight_sum", "weight_total"):
        assert np.allclose(found.head[name], expected.head[name], rtol=1e-6, atol=1e-12), name
    for slot in range(len(found.head)):
        assert scenes_of(found, slot) == pytest.approx(scenes_of(expected, slot), rel=1e-6)
        mine, other = near(found, slot), near(expected, slot)
        assert mine.keys() == other.keys()
        for item in mine:
            assert mine[item] == pytest.approx(other[item], rel=1e-5, abs=1e-6)


def scenes_of(states: ItemStates, slot: int) -> dict[tuple[int, int], float]:
    return {
        (int(scene["scene"]), i): float(scene["counts"][i])
        for scene in states.scenes[slot, : states.head["n_scenes"][slot]]
        for i in range(2)
        if scene["counts"][i] > 1e-9  # a scene with nothing left is as good as none
    }


def near(states: ItemStates, slot: int) -> dict[int, list[float]]:
    return {
        int(entry["item"]): [float(entry[n]) for n in ("together", "together_lately", "next")]
        for entry in states.neighbours[slot, : states.head["n_neighbours"][slot]]
    }


@deterministic
@given(histories, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_counts(
    history: list[dict[str, Any]], random: Any
) -> None:
    in_order = states_after(events_of(*history))
    random.shuffle(history)
    shuffled = states_after(events_of(*history))
    assert_same(shuffled, in_order)
    for name in ("ref_time", "first_time", "last_time"):
        assert shuffled.head[name] == pytest.approx(in_order.head[name], nan_ok=True)


@deterministic
@given(histories, st.integers(0, 29), st.booleans())
def test_a_retraction_is_as_if_the_event_had_never_come(
    history: list[dict[str, Any]], which: int, at_once: bool
) -> None:
    which %= len(history)
    gone = {**history[which], "sign": -1}
    rest = history[:which] + history[which + 1 :]
    place = which + 1 if at_once else len(history)
    retracted = states_after(events_of(*history[:place], gone, *history[place:]))
    # An event without weight brings both to the same time, and names the items.
    marks = [{"item": item, "time": START + 2e7, "weight": 0.0} for item in (4, 5)]
    never = states_after(events_of(*rest, *marks))
    apply_item_events(retracted, np.array([0, 1]), events_of(*marks))
    assert_same(retracted, never)


@deterministic
@given(histories, st.integers(0, 30))
def test_the_result_is_the_same_to_the_bit_whatever_the_chunks(
    history: list[dict[str, Any]], cut: int
) -> None:
    events = events_of(*history)
    whole, parts = states_after(events), ItemStates(2)
    for part in (events[:cut], events[cut:]):
        apply_item_events(parts, (part["item"] % 2).astype(np.int64), part)
    assert parts.pack(np.arange(2)) == whole.pack(np.arange(2))


def test_counts_have_the_values_of_the_formula() -> None:
    states = states_after(
        events_of(
            {"weight": 3.0},
            {"time": START + 86400.0},
            {"time": START + 43200.0, "weight": -2.0},
            {"time": START + 43200.0, "weight": 0.0},
            {"time": START + 43200.0, "weight": 0.0},
            {"time": START + 43200.0, "weight": 0.0, "sign": -1},
        )
    )
    head = states.head[1]
    expected = [2.0 ** (-86400.0 / half_life) + 1.0 for half_life in states.half_lives]
    assert states.columns.counts[1] == pytest.approx(expected)
    assert states.columns.counts[1, COUNT.never] == 2.0
    assert head["weight_sum"][0] == pytest.approx(1.5 + 1.0 - 2.0 * 2**-0.5)
    assert head["weight_total"] == 3.0 + 1.0 - 2.0
    assert (head["positives"], head["negatives"], head["neutrals"]) == (2, 1, 1)
    assert (head["first_time"], head["last_time"]) == (START, START + 86400.0)


def test_neighbours_count_together_and_directly_before() -> None:
    states = states_after(
        events_of(
            {"recent": [11, 12, 5]},
            {"recent": [12], "time": START + 864000.0},
            {"recent": [13], "weight": -1.0},
        )
    )
    assert near(states, 1) == {
        11: pytest.approx([1.0, 0.5, 1.0]),
        12: pytest.approx([1.8, 1.4, 1.0]),
    }


def test_neighbours_are_bounded_and_a_frequent_one_is_kept() -> None:
    random = np.random.default_rng(0)
    rows = [
        {"recent": [11, *random.integers(100, 10**6, 5).tolist()], "time": START + 60.0 * i}
        for i in range(300)
    ]
    states = states_after(events_of(*rows))
    assert states.head["n_neighbours"][1] == NEIGHBOURS
    assert near(states, 1)[11][0] == 300.0
    assert near(states, 1)[11][2] == 300.0
    others = [counts[0] for item, counts in near(states, 1).items() if item != 11]
    assert max(others) <= 3.0  # what is reported was counted, not inherited


def test_a_neighbour_long_before_does_not_displace_one_that_is_near() -> None:
    rows = [{"recent": [100 + i], "time": START + i} for i in range(NEIGHBOURS)]
    before = near(states_after(events_of(*rows)), 1)
    far = {"recent": [100, 101, 7], "time": START + 100.0}
    later = {"recent": [100, 101, 8], "time": START + 8640000.0}
    assert near(states_after(events_of(*rows, far)), 1).keys() == before.keys()
    assert 8 in near(states_after(events_of(*rows, later)), 1)  # the others have decayed


def test_a_retraction_leaves_what_the_other_events_of_a_pair_counted() -> None:
    pair = {"recent": [10, 11]}
    states = states_after(events_of(pair, {"recent": [11]}, {**pair, "sign": -1}))
    assert near(states, 1) == {11: pytest.approx([1.0, 1.0, 1.0])}
    assert states.neighbours[1, 0]["pairs"] == 1
    gone = states_after(events_of(pair, {**pair, "sign": -1}, {**pair, "sign": -1}))
    assert near(gone, 1) == {}


def test_a_new_frequent_neighbour_comes_in_when_the_list_is_full() -> None:
    rows = [{"recent": [100 + i], "time": START + i} for i in range(NEIGHBOURS + 20)]
    rows += [{"recent": [7], "time": START + 1000.0 + i} for i in range(5)]
    assert near(states_after(events_of(*rows)), 1)[7][0] == 5.0


def test_scenes_are_bounded_and_the_least_gives_way() -> None:
    rows = [
        {"scene": scene, "time": START + scene} for scene in (1, 2, 3, 4) for _ in range(5 - scene)
    ]
    states = states_after(events_of(*rows, {"scene": 9, "time": START + 10.0}))
    scenes = states.scenes[1]["scene"].tolist()
    assert sorted(scenes) == [1, 2, 3, 9]
    assert states.scenes[1]["counts"][scenes.index(1), 1] == pytest.approx(4.0, rel=1e-4)


def test_times_far_apart_leave_nothing_and_no_denormal_numbers() -> None:
    states = states_after(
        events_of({"time": 0.0, "recent": [11], "scene": 3}, {"time": 4e9}, {"time": 1.0})
    )
    assert states.columns.counts[1].tolist() == [1.0] * 2 + [3.0] + [1.0] * 6
    assert states.neighbours[1, 0]["together_lately"] == 0
    assert near(states, 1)[11][0] == 1.0


def full() -> ItemStates:
    random = np.random.default_rng(1)
    rows = [
        {
            "item": 4 + (i % 8 > 0),
            "recent": random.choice(np.arange(10, 90), 20, replace=False).tolist(),
            "scene": i % 5,
            "time": START + 1e4 * random.random(),
        }
        for i in range(40)
    ]
    return states_after(events_of(*rows), capacity=3)


def test_rows_survive_bytes_bit_for_bit_in_any_slot() -> None:
    states = full()
    rows = states.pack(np.arange(3))
    other = ItemStates(5)
    other.neighbours["together"] = 9.0
    other.unpack(np.array([3, 1, 0]), rows)
    assert other.pack(np.array([3, 1, 0])) == rows
    assert other.head[1]["item"] == 5
    assert [len(row) for row in rows] == sorted([len(row) for row in rows], key=len(rows).__ge__)
    assert max(len(row) for row in rows) <= ROW_BYTES_MAX
    other.unpack(np.array([3]), [None])
    assert other.pack(np.array([3])) == ItemStates(1).pack(np.array([0]))


def test_growing_keeps_rows_and_copies_do_not_follow_later_events() -> None:
    states = full()
    before = states.pack(np.arange(3))
    states.grow(9)
    states.grow(2)
    assert states.capacity == 9
    copy = states.copy_rows(np.array([1, 0]))
    apply_item_events(states, np.array([1]), events_of({}))
    assert copy.pack(np.array([0, 1])) == [before[1], before[0]]
    assert np.isnan(states.head["first_time"][8])


def test_growing_within_the_room_copies_nothing_and_new_rows_are_those_of_nothing() -> None:
    states = ItemStates(0, most=8)
    states.grow(2)
    states.unpack(np.array([1]), full().pack(np.array([1])))
    neighbours, row = states.neighbours, states.pack(np.array([1]))
    states.grow(7)
    assert np.shares_memory(states.neighbours, neighbours)
    assert states.pack(np.array([1])) == row
    assert states.pack(np.array([0, 6])) == ItemStates(1).pack(np.array([0])) * 2


def test_another_format_is_refused_by_name() -> None:
    row = full().pack(np.array([1]))[0]
    with pytest.raises(ItemStateFormatError, match="item row 0 of 1 has format 7; format 3 is"):
        ItemStates(1).unpack(np.array([0]), [b"\x07" + row[1:]])


@cache
def full_row() -> bytes:
    return full().pack(np.array([1]))[0]


@settings(deadline=None, derandomize=True)
@given(st.data())
def test_damaged_bytes_are_refused_and_never_read(data: st.DataObject) -> None:
    row = full_row()
    choice = data.draw(st.sampled_from(["cut", "flip", "grow", "noise"]))
    if choice == "cut":
        damaged = row[: data.draw(st.integers(0, len(row) - 1))]
    elif choice == "flip":
        at = data.draw(st.integers(0, len(row) - 1))
        damaged = row[:at] + bytes([row[at] ^ data.draw(st.integers(1, 255))]) + row[at + 1 :]
    elif choice == "grow":
        damaged = row + data.draw(st.binary(min_size=1, max_size=64))
    else:
        damaged = data.draw(st.binary(max_size=200))
    states = ItemStates(1)
    with pytest.raises(ItemStateFormatError):
        states.unpack(np.array([0]), [damaged])
    assert states.head["item"][0] == 0


def test_the_golden_row_of_format_1_is_refused_with_the_way_out() -> None:
    row = (GOLDEN / "item_row_1.bin").read_bytes()
    with pytest.raises(
        ItemStateFormatError, match=r"has format 1; format 3 .* reset-state --every"
    ):
        ItemStates(1).unpack(np.array([0]), [row])


def assert_golden(states: ItemStates) -> None:
    head = states.head[0]
    assert (head["item"], head["positives"], head["negatives"], head["neutrals"]) == (5, 2, 1, 1)
    assert head["weight_total"] == 2.5
    assert (head["first_time"], head["last_time"]) == (START, START + 172800.0)
    assert states.scenes["scene"][0, :2].tolist() == [9, 8]
    assert near(states, 0)[4][0] == pytest.approx(1.8)


def test_the_golden_row_of_format_2_is_read_with_the_half_lives_it_had() -> None:
    row = (GOLDEN / "item_row_2.bin").read_bytes()
    states = ItemStates(1, FORMER)
    states.unpack(np.array([0]), [row])
    assert_golden(states)
    expected = [2.0 ** (-172800.0 / half_life) + 1.0 for half_life in states.half_lives]
    assert states.columns.counts[0] == pytest.approx(expected)
    assert not states.counted["seeded"].any()
    assert states.head["seeded"][0] == 0


def test_rows_stay_in_format_2_while_the_index_names_no_half_lives_and_nothing_is_estimated() -> (
    None
):
    row = (GOLDEN / "item_row_2.bin").read_bytes()
    states = ItemStates(1, FORMER)
    states.unpack(np.array([0]), [row])
    assert states.pack(np.array([0])) == [row]  # a worker of before can read it
    states.head["seeded"][0] = 7
    assert states.pack(np.array([0]))[0][:2] == b"\x03\x00"


def test_numbers_below_zero_in_a_row_of_format_2_are_read_as_none() -> None:
    """In releases before, a retraction too many took them below, which was written as 2^32 less."""
    states, read = ItemStates(1, FORMER), ItemStates(1, FORMER)
    states.unpack(np.array([0]), [(GOLDEN / "item_row_2.bin").read_bytes()])
    states.head["positives"][0], states.head["negatives"][0] = 2**32 - 3, 2**31 - 1
    states.counted["count"][0, 0] = -1.5
    (row,) = states.pack(np.array([0]))
    assert row[:2] == b"\x02\x00"
    read.unpack(np.array([0]), [row])
    head = read.head[0]
    assert (head["positives"], head["negatives"], head["neutrals"]) == (0, 2**31 - 1, 1)
    assert read.counted["count"][0, 0] == 0.0
    assert read.counted["count"][0, 1:].tolist() == states.counted["count"][0, 1:].tolist()


def test_the_golden_row_of_format_3_is_read_and_written_the_same() -> None:
    row = (GOLDEN / "item_row_3.bin").read_bytes()
    states = ItemStates(1)
    states.unpack(np.array([0]), [row])
    assert states.pack(np.array([0])) == [row]
    assert_golden(states)
    minutes = states.scales.seconds.index(600.0)
    assert states.counted["seeded"][0, minutes] == int(states.head["ref_time"][0])


def test_counts_by_half_lives_that_both_have_are_carried_bit_for_bit() -> None:
    states, other = full(), ItemStates(3, FORMER)
    other.unpack(np.arange(3), states.pack(np.arange(3)))
    for column, seconds in enumerate(other.scales.seconds):
        if seconds in states.scales.seconds:
            mine = states.columns.counts[:, states.scales.seconds.index(seconds)]
            assert other.columns.counts[:, column].tolist() == mine.tolist()
            assert not other.counted["seeded"][:, column].any()
        else:
            assert other.counted["seeded"][1, column] == int(states.head["ref_time"][1])
    assert other.head["weight_sum"].tolist() == states.head["weight_sum"].tolist()
    in_memory = full()
    in_memory.follow(FORMER)
    every = np.arange(3)
    assert in_memory.pack(every) == other.pack(every)


def test_a_new_count_of_events_that_come_evenly_is_about_what_it_would_have_been() -> None:
    even = events_of(*({"time": START + 600.0 * n} for n in range(6000)))
    wide = ItemCounts(more_seconds=(600.0, 3600.0, 21600.0, 7200.0 * 24, 3456000.0, 31557600.0))
    few = ItemCounts(more_seconds=(3600.0, 3456000.0))
    truth, guess = ItemStates(2, wide), ItemStates(2, few)
    for states in (truth, guess):
        apply_item_events(states, np.ones(len(even), np.int64), even)
    guess.follow(wide)
    found, expected = guess.columns.counts[1], truth.columns.counts[1]
    assert found == pytest.approx(expected, rel=0.35)
    assert found[[0, 1, 2]].tolist() == expected[[0, 1, 2]].tolist()
    order = np.argsort(wide.half_lives)
    assert (np.diff(found[order]) >= 0.0).all(), "a longer half-life never counts less"


def test_an_estimate_fades_and_the_count_is_as_if_it_had_been_there_from_the_start() -> None:
    minutes = ItemCounts(more_seconds=(600.0,))
    begun, always = ItemStates(2, ItemCounts(more_seconds=())), ItemStates(2, minutes)
    early = events_of(*({"time": START + 60.0 * n} for n in range(30)))
    later = events_of(*({"time": START + 9000.0 + 60.0 * n} for n in range(30)))
    every = np.ones(30, np.int64)
    for states in (begun, always):
        apply_item_events(states, every, early)
    begun.follow(minutes)
    for states in (begun, always):
        apply_item_events(states, every, later)
    assert begun.columns.counts[1] == pytest.approx(always.columns.counts[1], rel=1e-3)


def test_going_back_to_the_half_lives_before_loses_nothing_that_is_counted_beside() -> None:
    before = ItemCounts(more_seconds=(600.0, 3600.0))
    after = ItemCounts(more_seconds=(21600.0,)).after(before)
    moved, never = ItemStates(2, before), ItemStates(2, before)
    early = events_of(*({"time": START + 60.0 * n} for n in range(30)))
    later = events_of(*({"time": START + 1800.0 + 60.0 * n} for n in range(30)))
    every = np.ones(30, np.int64)
    for states in (moved, never):
        apply_item_events(states, every, early)
    moved.follow(after)
    for states in (moved, never):
        apply_item_events(states, every, later)
    moved.follow(before)
    assert moved.pack(np.arange(2)) == never.pack(np.arange(2))


def test_scenes_and_pairs_by_another_half_life_are_scaled_and_marked() -> None:
    states = full()
    before = states.scenes["counts"][1, 0].copy(), states.neighbours["together_lately"][1, 0]
    together = float(states.neighbours["together"][1, 0])
    states.follow(ItemCounts(short_seconds=43200.0, long_seconds=86400.0, more_seconds=()))
    assert states.scenes["counts"][1, 0] == pytest.approx(before[0] * [0.5, 0.1])
    assert states.neighbours["together_lately"][1, 0] == pytest.approx(before[1] * 0.1)
    assert states.head["seeded"][1] == int(states.head["ref_time"][1])
    states.follow(ItemCounts(long_seconds=86400.0 * 300, more_seconds=()))
    assert states.neighbours["together_lately"][1, 0] <= together


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"time": np.nan}, "not a number"),
        ({"weight": np.inf}, "not a number"),
        ({"sign": 0}, "sign other than"),
        ({"n_recent": 21}, "over 20 recents"),
    ],
)
def test_events_that_cannot_be_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        apply_item_events(ItemStates(1), np.array([0]), events_of(change))


def test_wrong_slots_are_refused_with_what_was_found_and_expected() -> None:
    with pytest.raises(ValueError, match="slots run from 3 to 3; the arena has rows 0 to 1"):
        apply_item_events(ItemStates(2), np.array([3]), events_of({}))
    with pytest.raises(ValueError, match="2 slots for 1 item events"):
        apply_item_events(ItemStates(2), np.array([0, 1]), events_of({}))
    apply_item_events(ItemStates(2), np.zeros(0, np.int64), events_of())


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    native = full().pack(np.arange(3))
    for module in (item_bytes, item_counts, item_state, neighbours_module):
        for name, kernel in list(vars(module).items()):
            if hasattr(kernel, "py_func"):
                monkeypatch.setattr(module, name, kernel.py_func)
    plain = full()
    other = ItemStates(3)
    other.unpack(np.arange(3), native)
    assert_same(plain, other)
    assert other.pack(np.arange(3)) == native


def test_numbers_of_events_stay_within_their_bits() -> None:
    late = dict(time=START, sign=-1)
    states = states_after(events_of(dict(time=START), late, late, late))
    assert states.head["positives"][0] == 0
    assert (states.columns.counts[0] == 0.0).all()
    states.head["positives"][0] = 2**32 - 1
    apply_item_events(states, np.zeros(1, np.int64), events_of(dict(time=START)))
    assert states.head["positives"][0] == 2**32 - 1


def test_a_retraction_of_an_event_before_the_row_began_is_passed_over() -> None:
    events = events_of(dict(time=START), dict(time=START - 1.0, sign=-1, weight=2.0))
    with_it, without = states_after(events), states_after(events[:1])
    assert_same(with_it, without)
