"""EncoderSteps: waves are one event after another, whatever the batch and its split."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tracker.encoder.test_user_encoder import CELLS, HALF_LOSS, encoder
from tracker.encoder.cells import CellName
from tracker.encoder.steps import (
    EncoderEvents,
    EncoderSteps,
    chunk_gaps,
    export_step,
    with_bias,
)
from tracker.encoder.user_encoder import StepInputs

USERS = 6
CPU = torch.device("cpu")


def steps(cell: CellName = "gru") -> EncoderSteps:
    model = encoder(cell)
    return EncoderSteps(model, torch.randn(9, model.dim, generator=torch.Generator()), CPU)


def chunk(size: int, seed: int) -> EncoderEvents:
    rng = np.random.default_rng(seed)
    return EncoderEvents(
        slots=rng.integers(0, USERS, size),
        rows=rng.integers(-1, 9, size),
        kinds=rng.choice(np.array([11, 22, 33], np.uint16), size),
        scenes=rng.choice(np.array([0, 7, 70], np.uint32), size),
        values=rng.choice(np.array([np.nan, 2.0, 5.0], np.float32), size),
        times=np.cumsum(rng.exponential(3600.0, size)) + 1e9,
    )


def part(events: EncoderEvents, begin: int, end: int) -> EncoderEvents:
    return EncoderEvents(*(getattr(events, name)[begin:end] for name in EncoderEvents.__slots__))


def run(found: EncoderSteps, events: EncoderEvents, cuts: list[int]) -> np.ndarray:
    """Run the events in chunks that end at `cuts`; return the states."""
    states = np.zeros((USERS, found.state_dim), np.float16)
    last = np.full(USERS, np.nan)
    for begin, end in zip([0, *cuts], [*cuts, len(events.slots)], strict=True):
        some = part(events, begin, end)
        found.update(states, last[some.slots], some)
        for slot, time in zip(some.slots.tolist(), some.times.tolist(), strict=True):
            last[slot] = np.fmax(last[slot], time)
    return states


@pytest.mark.parametrize("cell", CELLS)
@given(
    size=st.integers(1, 40),
    seed=st.integers(0, 100),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
@settings(max_examples=15, deadline=None)
def test_any_split_of_a_chunk_gives_the_states_of_one_by_one(
    cell: CellName, size: int, seed: int, cuts: list[int]
) -> None:
    found, events = steps(cell), chunk(size, seed)
    one_by_one = run(found, events, list(range(1, size)))
    split = run(found, events, sorted(min(cut, size) for cut in cuts))
    # Matrix products of other heights may differ in the last bit, and float16 rounds it up.
    np.testing.assert_allclose(split, one_by_one, atol=4e-3, rtol=2e-3)


def test_gaps_within_a_chunk_follow_the_user_and_a_late_event_has_none() -> None:
    gaps = chunk_gaps(
        np.array([0, 1, 0, 0, 1]),
        np.array([100.0, 50.0, 160.0, 130.0, 80.0]),
        np.array([40.0, np.nan, 40.0, 40.0, np.nan]),
    )
    assert gaps.tolist() == [60.0, -1.0, 60.0, 0.0, 30.0]


@pytest.mark.parametrize("cell", CELLS)
def test_rebuilding_from_the_ring_gives_the_state_of_the_same_events(cell: CellName) -> None:
    found, events = steps(cell), chunk(30, 3)
    states = run(found, events, [])
    places = [np.flatnonzero(events.slots == user) for user in range(USERS)]
    lengths = np.array([len(place) for place in places])
    table = np.zeros((USERS, lengths.max()), np.int64)
    for user, place in enumerate(places):
        table[user, : len(place)] = place
    rebuilt = found.rebuild(
        events.rows[table],
        events.kinds[table],
        events.scenes[table],
        events.values[table],
        events.times[table],
        lengths,
    )
    assert rebuilt.dtype == np.float16
    np.testing.assert_allclose(rebuilt, states, atol=HALF_LOSS, rtol=HALF_LOSS)


def test_rebuilding_nobody_and_nothing() -> None:
    found = steps()
    empty = np.zeros((2, 0))
    rebuilt = found.rebuild(
        empty.astype(np.int64),
        empty.astype(np.uint16),
        empty.astype(np.uint32),
        empty.astype(np.float32),
        empty,
        np.zeros(2, np.int64),
    )
    assert rebuilt.shape == (2, found.state_dim)
    assert not rebuilt.any()


def test_an_unknown_item_moves_the_state_and_does_no_harm() -> None:
    found, events = steps(), chunk(1, 0)
    events.rows[0] = -1
    states = run(found, events, [])
    assert np.isfinite(states).all()
    assert states[events.slots[0]].any()


def test_a_query_and_an_item_of_the_index_give_the_score() -> None:
    found, events = steps(), chunk(20, 1)
    states = run(found, events, [])
    queries = found.queries(states, np.full(USERS, 60.0), np.full(USERS, 3))
    vectors, biases = torch.randn(9, 16), torch.randn(9)
    scores = queries @ with_bias(vectors, biases).T
    expected = queries[:, :-1] @ vectors.numpy().T + biases.numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    later = found.queries(states, np.full(USERS, 604800.0), np.full(USERS, 3))
    assert not np.allclose(later, queries, atol=1e-3)
    never = found.queries(np.zeros_like(states), np.full(USERS, np.nan), np.zeros(USERS, np.int64))
    assert np.isfinite(never).all()


@pytest.mark.xdist_group("slow to load")  # in one process only
@pytest.mark.parametrize("cell", CELLS)
def test_the_exported_step_is_the_step_for_any_batch(cell: CellName) -> None:
    model = encoder(cell)
    program = export_step(model).module()
    for users in (1, 2, 5, 64):
        generator = torch.Generator().manual_seed(users)
        state = torch.randn(users, model.state_dim, generator=generator)
        columns = (
            torch.randn(users, model.dim, generator=generator),
            torch.randint(0, 3, (users,), generator=generator),
            torch.randint(0, 4, (users,), generator=generator),
            torch.randn(users, 2, generator=generator),
            torch.rand(users, generator=generator) * 1e6 - 1.0,
        )
        with torch.no_grad():
            expected = model.step(state, StepInputs(*columns))
            torch.testing.assert_close(program(state, *columns), expected, atol=1e-5, rtol=1e-5)
