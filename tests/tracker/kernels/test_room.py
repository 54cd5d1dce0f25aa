"""Room behind the columns of an arena: growth keeps rows, and copies nothing that need not be."""

import numpy as np

from tracker.kernels.room import Room


def test_a_column_grows_in_place_up_to_the_most_rows() -> None:
    room = Room(most=8)
    column = room.longer("sums", np.ones((0, 3), np.float32), 2)
    column[:] = 5.0
    longer = room.longer("sums", column, 8)
    assert longer[:2].tolist() == [[5.0] * 3] * 2
    assert not longer[2:].any()
    assert np.shares_memory(longer, column)


def test_a_column_grows_past_the_most_rows_too() -> None:
    room = Room(most=2)
    column = room.longer("sums", np.array([7.0]), 2)
    longer = room.longer("sums", column, 5)
    assert longer.tolist() == [7.0, 0.0, 0.0, 0.0, 0.0]
    assert not np.shares_memory(longer, column)


def test_a_column_that_was_replaced_meanwhile_is_the_one_that_grows() -> None:
    room = Room(most=4)
    room.longer("hidden", np.zeros((1, 2), np.float16), 2)[:] = 9.0
    other = room.longer("hidden", np.ones((2, 3), np.float16), 3)
    assert other.tolist() == [[1.0] * 3, [1.0] * 3, [0.0] * 3]
    same_width = room.longer("hidden", np.ones((3, 3), np.float16), 4)
    assert same_width.tolist() == [[1.0] * 3] * 3 + [[0.0] * 3]


def test_columns_of_two_names_do_not_share_room() -> None:
    room = Room(most=4)
    first = room.longer("first", np.zeros(1), 2)
    second = room.longer("second", np.zeros(1), 2)
    assert not np.shares_memory(first, second)


def test_a_column_grows_step_by_step_where_the_system_promises_no_room() -> None:
    room = Room(most=2**45)
    column = room.longer("sums", np.array([7.0]), 2)
    longer = room.longer("sums", column, 3)
    assert longer.tolist() == [7.0, 0.0, 0.0]
