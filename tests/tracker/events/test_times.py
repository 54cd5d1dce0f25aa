"""Timestamps: units by magnitude, and the texts that are read."""

import math

import pytest

from tracker.events.times import UNITS, Unit, seconds, unit_of

NOON = 1714500000.0  # 2024-04-30T18:00:00Z


@pytest.mark.parametrize(
    "text",
    [
        "2024-04-30T18:00:00Z",
        "2024-04-30T18:00:00z",
        "2024-04-30t18:00:00",
        "2024-04-30 18:00:00",
        " 2024-04-30 18:00:00 ",
        "2024-04-30 18:00:00 UTC",
        "2024-04-30 18:00:00 utc",
        "2024-04-30 18:00:00 GMT",
        "2024-04-30 18:00:00+00",
        "2024-04-30T18:00:00+0000",
        "2024-04-30T20:00:00+0200",
        "2024-04-30 20:00:00 +02:00",
        "2024-04-30 20:00:00 +0200",
        "2024-04-30 18:00:00 +0000 UTC",
        "2024-04-30T18:00:00.000Z",
        "2024-04-30T18:00:00.000000000 Z",
        "20240430T180000Z",
        "1714500000",
        " 1714500000.0 ",
        "1.7145e9",
        "1714500000000",
        "1714500000000000",
        "1714500000000000000",
    ],
)
def test_each_unambiguous_text_is_the_same_moment(text: str) -> None:
    assert seconds(text) == NOON


def test_a_date_alone_is_its_first_moment_and_eight_digits_are_a_date() -> None:
    assert seconds("2024-04-30") == seconds("20240430") == 1714435200.0
    assert seconds("20249999") == 20249999.0
    assert seconds("20240430", "seconds") == 20240430.0


@pytest.mark.parametrize("unit", ["seconds", "ms", "us", "ns"])
def test_numbers_are_read_in_the_unit_given_and_in_the_unit_that_their_size_tells(
    unit: Unit,
) -> None:
    factor = {"seconds": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    assert unit_of(NOON * factor) == unit
    assert seconds(NOON * factor) == NOON
    assert seconds(str(int(NOON * factor))) == NOON
    assert seconds(5.0 * factor, unit) == 5.0


def test_the_bounds_of_the_units_are_those_of_the_docs() -> None:
    assert [unit_of(n) for n in (0, 99_999_999_999, 1e11, 1e14, 1e17)] == [
        "seconds",
        "seconds",
        "ms",
        "us",
        "ns",
    ]
    assert UNITS == ("auto", "seconds", "ms", "us", "ns")


@pytest.mark.parametrize(
    "timestamp",
    [
        math.nan,
        math.inf,
        -1.0,
        -1714500000000.0,
        1e300,
        "0001-01-01T00:00:00",
        "7 pm",
        "",
        "nan",
        "1e999",
        "30/04/2024 18:00",
        "2024-04-30 18:00 +99:00",
        "2024-04-30 18:00:00 CET",
    ],
)
@pytest.mark.parametrize("unit", ["auto", "seconds", "ns"])
def test_what_is_no_time_is_refused(timestamp: float | str, unit: Unit) -> None:
    if (timestamp, unit) == (-1.0, "ns"):
        timestamp = -1e9
    with pytest.raises(ValueError, match="time"):
        seconds(timestamp, unit)
