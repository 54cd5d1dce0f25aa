"""Searches for items: the order of what is found."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracker.api.items import _largest


@given(
    values=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), max_size=30), k=st.integers(1, 9)
)
def test_the_largest_come_first_and_equal_ones_by_place(values: list[float], k: int) -> None:
    found = _largest(np.array(values, np.float32), k)
    assert found.tolist() == sorted(range(len(values)), key=lambda place: -values[place])[:k]


def test_a_column_of_a_table_is_taken_as_it_lies() -> None:
    table = np.array([[1.0, 9.0], [3.0, 9.0], [2.0, 9.0]])
    assert _largest(table[:, 0], 2).tolist() == [1, 2]
