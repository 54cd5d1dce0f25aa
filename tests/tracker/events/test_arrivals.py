"""Arrivals: the limit of the future by the right clock, and which verdicts a clock may change."""

import numpy as np
import pytest

from tracker.events.arrivals import MAX_FUTURE_SECONDS, Arrivals

NOW = 1_700_000_000.0
CREATE, APPEND = 0, 1


def limit(recorded: float | None, kind: int | None) -> float:
    milliseconds = None if recorded is None else int(recorded * 1000)
    [latest] = Arrivals.of_records([milliseconds], [kind], NOW).latest
    return latest - MAX_FUTURE_SECONDS


def test_the_append_time_limits_the_future_and_the_clock_limits_the_append_time() -> None:
    assert limit(NOW - 3600.0, APPEND) == NOW - 3600.0
    assert limit(NOW + 1e9, APPEND) == NOW


@pytest.mark.parametrize("recorded", [0.0, -0.001, NOW - 3600.0, NOW + 2.4e9])
def test_a_producers_time_limits_nothing(recorded: float) -> None:
    assert limit(recorded, CREATE) == NOW
    assert limit(recorded, None) == NOW


def test_a_record_without_a_time_came_now() -> None:
    assert limit(None, None) == limit(-0.001, APPEND) == NOW
    assert Arrivals.of_records([None, -1, 0], [None, 1, 0], NOW).times == [NOW] * 3


def test_a_record_came_at_its_own_time_but_not_after_the_clock() -> None:
    milliseconds = [int((NOW + shift) * 1000) for shift in (-60.0, 2e9, -60.0, 2e9)]
    arrivals = Arrivals.of_records(milliseconds, [CREATE, CREATE, APPEND, APPEND], NOW)
    assert arrivals.times == [NOW - 60.0, NOW, NOW - 60.0, NOW]


@pytest.mark.parametrize(
    ("arrivals", "whose"),
    [
        (Arrivals.of_records([int(NOW - 100) * 1000], [APPEND], NOW), "the broker's append time"),
        (Arrivals.of_records([int(NOW + 100) * 1000], [APPEND], NOW), "the worker's clock"),
        (Arrivals.of_records([int(NOW) * 1000], [CREATE], NOW), "the worker's clock"),
        (Arrivals.of_file(1, NOW), "the time of reading"),
    ],
)
def test_a_refusal_names_whose_time_was_passed(arrivals: Arrivals, whose: str) -> None:
    text = arrivals.refusal(0, NOW + 1000.0)
    assert f"s past {whose} 1" in text
    assert text.endswith("check the clock of the sender")


@pytest.mark.parametrize(
    ("time", "remedy"),
    [
        (NOW * 1e3, "it looks like milliseconds: send seconds"),
        (NOW * 1e6, "it looks like microseconds: send seconds"),
        (NOW * 1e9, "it looks like nanoseconds: send seconds"),
        (1e12, "it looks like milliseconds: send seconds"),  # of 2001
        (NOW * 1.2e3, "check the clock of the sender"),  # no time before now in any unit
        (4102444800.0, "check the clock of the sender"),
        (1e300, "check the clock of the sender"),
    ],
)
def test_another_unit_is_named_where_it_can_be_one(time: float, remedy: str) -> None:
    assert Arrivals.of_file(1, NOW).refusal(0, time).endswith(remedy)


def is_open(recorded: float, kind: int, time: float) -> bool:
    arrivals = Arrivals.of_records([int(recorded * 1000)], [kind], NOW)
    return arrivals.is_open([0], np.array([time]))


def test_a_verdict_near_the_limit_of_a_clock_may_change_and_no_other_one() -> None:
    assert is_open(NOW, CREATE, NOW + 299.0)
    assert not is_open(NOW, CREATE, NOW + 200.0)
    assert not is_open(NOW + 2e9, CREATE, NOW)
    assert is_open(NOW - 1.0, APPEND, NOW + 298.0)  # a clock 10 s behind refuses it
    assert not is_open(NOW - 100.0, APPEND, NOW + 199.0)  # the append time is the limit
    assert not Arrivals.of_records([0], [CREATE], NOW).is_open([], np.zeros(0))
    assert not Arrivals.of_file(1, NOW).is_open([0], np.array([NOW + 300.0]))


def test_only_the_places_of_accepted_events_count() -> None:
    arrivals = Arrivals.of_records([int(NOW * 1000)] * 2, [APPEND, CREATE], NOW)
    old = Arrivals.of_records([int(NOW - 600) * 1000, int(NOW * 1000)], [APPEND, APPEND], NOW)
    assert old.is_by_clock(0) is False
    assert arrivals.is_by_clock(1)
    assert not old.is_open([0, 1], np.array([NOW - 400.0, NOW]))  # the first is near its own limit
    assert old.is_open([1], np.array([NOW + 250.0]))
