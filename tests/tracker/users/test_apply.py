"""Events into user rows: order, lateness, duplicates, the ring and the seen set."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small_world import START, Action, Users, batch, catalogue, retraction
from tracker.users import add_event as one_event
from tracker.users import apply as apply_module
from tracker.users import retract_event as retraction_module
from tracker.users import ring as ring_module
from tracker.users.apply import apply_events, rebuild_from_ring
from tracker.users.columns import APPLIED, DUPLICATE, RETRACTED
from tracker.users.config import InterestConfig
from tracker.users.seen import SeenSets, event_key
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, RING_UNKNOWN, UserStates

deterministic = settings(
    deadline=None, derandomize=True, max_examples=60
)  # the first call compiles

actions = st.builds(
    Action,
    user=st.integers(0, 2),
    item=st.integers(1, 50),  # 41-50 are not in the catalogue
    time=st.integers(0, 10**6).map(lambda seconds: START + seconds),
    weight=st.sampled_from([0.1, 1.0, 5.0, -1.0, 0.0]),
    event_id=st.integers(0, 12),
    scene=st.integers(0, 2),
)
retractions = st.builds(retraction, of=st.integers(1, 12), user=st.integers(0, 2))
streams = st.lists(st.one_of(actions, actions, actions, retractions), min_size=1, max_size=60)


@deterministic
@given(streams, st.lists(st.integers(1, 60), max_size=8))
def test_the_result_is_the_same_to_the_bit_whatever_the_chunks(
    stream: list[Action], cuts: list[int]
) -> None:
    whole, chunked, single = Users(), Users(), Users()
    applied = whole.apply(*stream)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    parts = [chunked.apply(*stream[start:end]) for start, end in pairwise(edges)]
    singles = [single.apply(action) for action in stream]
    assert chunked.rows() == whole.rows()
    assert single.rows() == whole.rows()
    for others in (parts, singles):
        assert np.concatenate([part.outcomes for part in others]).tolist() == (
            applied.outcomes.tolist()
        )
        events = np.concatenate([part.item_events for part in others])
        assert events.tobytes() == applied.item_events.tobytes()
        assert sum(part.unknown for part in others) == applied.unknown


@deterministic
@given(st.lists(actions, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_sums_and_counts(
    stream: list[Action], random: Any
) -> None:
    stream = [replace(action, event_id=0) for action in stream]
    in_order, shuffled = Users(), Users()
    in_order.apply(*stream)
    random.shuffle(stream)
    shuffled.apply(*stream)
    assert_same_sums(shuffled, in_order)


def assert_same_sums(found: Users, expected: Users, relative: float = 5e-6) -> None:
    """Compare what does not depend on order; float32 sums to 5e-6 of their mass."""
    for user in range(3):
        mine, other = found.states, expected.states
        for name in ("events", "positives", "negatives", "unknown", "known_positives"):
            assert mine.head[name][user] == other.head[name][user], name
        assert np.allclose(mine.masses[user], other.masses[user], rtol=relative, atol=1e-18)
        scale = np.maximum(other.masses[user], 1e-18)[:, None]
        assert (np.abs(mine.sums[user] - other.sums[user]) <= relative * scale).all()
        negative = float(other.head["negative_mass"][user])
        assert mine.head["negative_mass"][user] == pytest.approx(negative, rel=relative, abs=1e-18)
        assert np.abs(mine.negative[user] - other.negative[user]).max() <= relative * max(
            negative, 1e-18
        )


def test_a_repeated_event_id_in_the_ring_is_ignored_and_counted() -> None:
    users = Users()
    assert users.one(Action(item=1, event_id=5)) == APPLIED
    masses = users.states.masses.copy()
    assert users.one(Action(item=2, event_id=5, weight=9.0, time=START + 9.0)) == DUPLICATE
    assert np.array_equal(users.states.masses, masses)
    assert users.head()["duplicates"] == 1
    assert users.one(Action(item=1)) == APPLIED  # without an id nothing is a repeat
    assert users.one(Action(user=1, item=1, event_id=5)) == APPLIED


def test_an_unknown_item_is_counted_stays_in_the_ring_and_moves_time() -> None:
    users = Users()
    users.apply(Action(item=1))
    applied = users.apply(Action(item=45, time=START + 86400.0))
    assert applied.unknown == 1
    assert applied.item_events["item"].tolist() == [1045]
    assert applied.item_events["recent"][0, 0] == 1001
    head = users.head()
    assert (head["unknown"], head["events"], head["positives"]) == (1, 2, 2)
    assert head["ref_time"] == START + 86400.0
    assert users.states.masses[0, 1] == pytest.approx(0.5)
    assert users.states.ring[0]["flags"][:2].tolist() == [RING_IN_SUMS, RING_UNKNOWN]


def test_decayed_sums_have_the_values_of_the_formula() -> None:
    users = Users()
    users.apply(
        Action(item=1, weight=2.0),
        Action(item=2, weight=1.0, time=START + 86400.0),
        Action(item=3, weight=-4.0, time=START + 43200.0),
    )
    vectors = users.items.vectors
    assert users.states.masses[0, 1] == pytest.approx(2.0)
    assert users.states.sums[0, 1] == pytest.approx(vectors[0] * 1.0 + vectors[1], rel=1e-5)
    left = 4.0 * 2 ** (-43200.0 / 5184000.0)
    assert users.head()["negative_mass"] == pytest.approx(left, rel=1e-6)
    assert users.states.negative[0] == pytest.approx(left * vectors[2], rel=1e-5)


def test_times_far_apart_leave_nothing_and_no_denormal_numbers() -> None:
    users = Users()
    users.apply(Action(item=1, time=0.0), Action(item=2, weight=-1.0, time=1.0))
    users.apply(Action(item=3, time=4e9, weight=1e-3))
    assert users.states.masses[0] == pytest.approx([1e-3] * 4)
    assert users.head()["negative_mass"] == 0
    users.apply(Action(item=1, time=0.0, weight=5.0))  # so old that nothing is left of it
    assert users.states.masses[0] == pytest.approx([1e-3] * 4)
    assert users.head()["first_time"] == 0.0
    for step in range(200):
        users.apply(Action(item=45, time=4e9 + 1800.0 * step))
    sums = users.states.sums[0]
    assert (np.abs(sums[sums != 0]) > 1e-30).all()
    assert np.isfinite(sums).all()
    assert users.states.masses[0, 0] == 0


def test_what_leaves_the_ring_is_in_the_seen_set() -> None:
    users = Users()
    users.apply(*(Action(item=i, event_id=100 + i, time=START + i) for i in range(1, 31)))
    slot = int(users.seen_slots[0])
    gone = int(users.head()["evicted"])
    assert gone == 30 - int(users.head()["n_ring"])
    for i in range(1, gone + 1):
        assert users.seen.contains(slot, 1000 + i)
        assert users.seen.contains(slot, int(event_key(np.uint64(100 + i))))
    assert not users.seen.contains(slot, 1000 + gone + 1)
    assert users.seen_slots[1:].tolist() == [-1, -1]


def test_item_events_carry_the_recent_items_and_a_retraction_the_same_as_its_event() -> None:
    users = Users()
    users.apply(
        Action(item=1, event_id=1),
        Action(item=2, event_id=2, weight=-1.0),
        Action(item=3, event_id=3),
        Action(item=1, event_id=4),
    )
    applied = users.apply(
        Action(item=5, event_id=5, scene=9, weight=2.0, time=START + 7.0),
        retraction(of=3, time=START + 100.0),
        Action(item=6, event_id=6, time=START + 8.0),
        retraction(of=5),
    )
    assert applied.outcomes.tolist() == [APPLIED, RETRACTED, APPLIED, RETRACTED]
    first, _, third, last = applied.item_events
    assert first["recent"][: first["n_recent"]].tolist() == [1001, 1003]
    assert third["recent"][: third["n_recent"]].tolist() == [1005, 1001]
    assert first["sign"] == 1
    assert last["sign"] == -1
    for name in ("item", "time", "weight", "scene", "kind", "n_recent"):
        assert first[name] == last[name], name
    assert first["recent"].tolist() == last["recent"].tolist()
    assert applied.item_events["source_offset"].tolist() == [4, 5, 6, 7]
    assert applied.item_events["source_partition"].tolist() == [3] * 4


def test_a_rebuild_in_another_basis_takes_what_the_ring_holds() -> None:
    users, other = Users(), catalogue(items=48, seed=5)
    users.apply(
        Action(item=1, weight=2.0, event_id=1),
        Action(item=2, event_id=2),
        Action(item=3, weight=-1.0),
        Action(item=45, weight=4.0),  # was unknown, and is known by now
        retraction(of=2),
    )
    rebuild_from_ring(users.states, np.array([0]), other, basis=12, sequence=5)
    head = users.head()
    assert (head["basis"], head["artifact"], head["known_positives"]) == (12, 5, 2)
    expected = 2.0 * other.vectors[0] + 4.0 * other.vectors[44]
    assert users.states.sums[0, 2] == pytest.approx(expected, rel=1e-5)
    assert users.states.negative[0] == pytest.approx(other.vectors[2], rel=1e-5)
    assert users.states.masses[0] == pytest.approx([6.0] * 4)
    ring = users.states.ring[0]  # of one time, events without an id are first
    assert ring["flags"][ring["item"] == 1045] & 7 == RING_IN_SUMS | RING_UNKNOWN
    with pytest.raises(ValueError, match=r"basis c; b is expected"):
        users.apply(Action())


def test_wrong_calls_are_refused_with_what_was_found_and_expected() -> None:
    users = Users()
    with pytest.raises(ValueError, match="slots run from 7 to 7"):
        users.apply(Action(user=7))
    with pytest.raises(ValueError, match="not a number"):
        users.apply(Action(time=float("nan")))
    with pytest.raises(ValueError, match="not a number"):
        users.apply(Action(weight=float("inf")))
    wide = catalogue(dim=16)
    events = batch([Action()], wide)
    with pytest.raises(ValueError, match="dim 16, the states 8"):
        apply_events(users.states, users.seen, users.seen_slots, events, wide)
    users.apply(*(Action(item=i) for i in range(1, 20)))
    with pytest.raises(ValueError, match="seen set that was not"):
        apply_events(
            users.states,
            users.seen,
            np.full(3, -1),
            batch([Action()], users.items),
            users.items,
            basis=11,
        )
    assert len(users.apply().outcomes) == 0


@pytest.mark.parametrize("component", [0.0, np.nan], ids=["without text", "nan"])
def test_an_item_whose_vector_says_nothing_never_enters_a_state(component: float) -> None:
    users = Users()
    users.items.vectors[0] = component
    users.apply(Action(item=1), Action(item=2))
    assert np.isfinite(users.states.sums).all()
    assert users.head()["known_positives"] == 1
    rebuild_from_ring(users.states, np.array([0]), users.items, basis=11)
    assert np.isfinite(users.states.sums).all()
    assert users.head()["known_positives"] == 1


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(2)
    stream = [
        Action(
            item=int(random.integers(1, 45)),
            time=START + 1e5 * random.random(),
            weight=float(random.choice([1.0, 3.0, -1.0, 0.0])),
            event_id=i + 1,
        )
        for i in range(24)
    ]
    for of in (3, 20, 20, 22, 90):
        stream.append(retraction(of=of))
    stream.extend([Action(item=9, event_id=90), Action(item=9, event_id=90)])
    native = Users()
    native_applied = native.apply(*stream)
    modules = (apply_module, one_event, retraction_module, ring_module)
    own = {module.__name__ for module in modules}
    for module in modules:
        for name, kernel in list(vars(module).items()):
            if hasattr(kernel, "py_func") and kernel.py_func.__module__ in own:
                monkeypatch.setattr(module, name, kernel.py_func)
    plain = Users()
    plain_applied = plain.apply(*stream)
    assert plain_applied.outcomes.tolist() == native_applied.outcomes.tolist()
    assert plain_applied.item_events.tobytes() == native_applied.item_events.tobytes()
    assert_same_sums(plain, native, relative=1e-5)
    assert plain.states.ring.tobytes() == native.states.ring.tobytes()
    before = plain.states.sums.copy()
    rebuild_from_ring(plain.states, np.array([0]), plain.items, basis=11)
    assert not np.array_equal(before, plain.states.sums)
    assert RING_RETRACTED in (plain.states.ring[0]["flags"] & RING_RETRACTED)


def test_ten_thousand_random_events_keep_every_number_finite() -> None:
    config = InterestConfig()
    items = catalogue(items=500, dim=config.dim, seed=1)
    states, seen, seen_slots = UserStates(config, 20), SeenSets(config, 2), np.full(20, -1)
    random = np.random.default_rng(0)
    for chunk in range(20):
        stream = [
            Action(
                user=int(random.integers(20)),
                item=int(random.integers(1, 520)),
                time=START + float(random.normal(0, 1e7)),
                weight=float(random.choice([0.2, 1.0, 5.0, -2.0])),
                event_id=int(random.integers(1, 400)),
                retracts=int(random.integers(1, 400)) if random.random() < 0.1 else 0,
            )
            for _ in range(500)
        ]
        apply_events(states, seen, seen_slots, batch(stream, items, chunk * 500), items)
    for column in (states.masses, states.sums, states.negative, states.interest_heads["mass"]):
        assert np.isfinite(column).all()
    assert (states.masses >= 0).all()
    assert (states.head["positives"] <= states.head["events"]).all()
