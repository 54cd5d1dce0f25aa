"""Names close to a known one."""

import pytest

from tracker.events.names import letters_apart, nearest

FIELDS = ("user_id", "item_id", "scene", "event_id", "retracts")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("scen", "scene"),
        ("secne", "scene"),
        ("retract", "retracts"),
        ("Retracts", "retracts"),
        ("retracted", "retracts"),
        ("eventid", "event_id"),
        ("EventID", "event_id"),
        ("userId", "user_id"),
        ("colour", None),
        ("", None),
    ],
)
def test_a_name_within_two_letters_is_found_whatever_its_case(name: str, known: str | None) -> None:
    assert nearest(name, FIELDS) == known


def test_of_two_close_names_the_closer_one_is_meant() -> None:
    assert nearest("itme_id", ["item_ids", "item_id"]) == "item_id"


def test_very_long_names_are_compared_no_further_than_needed() -> None:
    assert letters_apart("x" * 10_000_000, "scene", 3) == 3
