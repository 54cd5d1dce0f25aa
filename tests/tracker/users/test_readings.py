"""What users' rows say at a time, in a small world."""

from typing import Any

import numpy as np
import pytest

from tests.small_world import START, lived_in
from tracker.users import readings
from tracker.users.readings import (
    interest_strengths,
    interest_vectors,
    read_histories,
    sum_masses,
)
from tracker.users.rows import RequestBatch, UserRows


def test_serving_reads_decayed_strengths_and_masses_without_writing() -> None:
    users = lived_in()
    before = users.states.pack(np.arange(3))
    slots = np.array([0, 1, 2])
    now = np.full(3, START + 20000.0 + 1209600.0)
    strengths, changes = interest_strengths(users.states, slots, now)
    assert strengths.shape == changes.shape == (3, 4)
    assert strengths[1, 0] == pytest.approx(0.5, rel=0.02)
    assert (changes[:2, 0] < 0).all()
    assert not strengths[2].any()
    vectors = interest_vectors(users.states, slots)
    assert np.linalg.norm(vectors[0], axis=1) == pytest.approx(np.array([1.0, 1.0, 1.0, 0.0]))
    assert vectors[1, 0] == pytest.approx(users.items.vectors[2], abs=1e-4)
    assert not vectors[2].any()
    masses = sum_masses(users.states, slots, users.states.head["ref_time"] + 86400.0)
    assert masses[1, 1] == pytest.approx(0.5)
    assert users.states.pack(np.arange(3)) == before


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states, slots, now = lived_in().states, np.arange(3), np.full(3, START + 1e5)

    def read() -> list[np.ndarray]:
        strengths, changes = interest_strengths(states, slots, now)
        return [strengths, changes, interest_vectors(states, slots), sum_masses(states, slots, now)]

    native_parts = read()
    for name, kernel in list(vars(readings).items()):
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(readings, name, kernel.py_func)
    for part, native_part in zip(read(), native_parts, strict=True):
        assert np.allclose(part, native_part, rtol=1e-5, atol=1e-6)


def test_user_without_a_state_has_no_interest_and_no_change_of_one() -> None:
    users = lived_in()
    rows = UserRows(users.states.config)
    rows.states = users.states
    items: Any = users.items
    nobody = RequestBatch(rows, np.array([-1]), np.array([START + 3e5]), np.zeros(1, np.uint32))
    read = read_histories(nobody, items)
    assert not read.strengths.any()
    assert not read.changes.any()
    assert not read.interests.any()
    assert read.order.tolist() == [list(range(read.order.shape[1]))]
