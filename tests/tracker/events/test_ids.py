"""Ids from texts and numbers."""

import pytest

from tracker.events.ids import IdError, id_text


def test_a_whole_number_and_its_digits_are_the_same_id() -> None:
    assert id_text(17, "item_id") == id_text("17", "item_id") == "17"
    assert id_text(-(2**70), "user_id") == "-1180591620717411303424"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (17.0, "float 17.0"),
        (float("nan"), "float nan"),
        (True, "true or false"),
        (None, "null"),
        ({}, "an object"),
        ([1], "an array"),
        (b"x", "a bytes"),
    ],
)
def test_anything_else_is_refused_with_its_field_and_the_remedy(value: object, found: str) -> None:
    with pytest.raises(IdError, match=rf"item_id is (the )?{found}; an id is a text or a whole"):
        id_text(value, "item_id")
