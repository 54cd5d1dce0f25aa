"""Timestamps: seconds from numbers of any unit and from texts; one rule for stream and files.

With the unit `auto`, the magnitude of a number tells its unit. Below 1e11 it is in seconds, below
1e14 in milliseconds, below 1e17 in microseconds, else in nanoseconds. Those bounds are the years
5138 in seconds and 1973 in each of the others.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

Unit = Literal["auto", "seconds", "ms", "us", "ns"]
"""Unit of timestamps that are numbers."""

UNITS: tuple[Unit, ...] = get_args(Unit)

MAX_SECONDS = 1e11
"""With the unit `auto`, a number below this is in seconds."""

EARLY = 631_152_000.0
"""The beginning of 1990: an event before it often has a timestamp of another unit."""

_PER_SECOND = {"seconds": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")

_MOMENT = re.compile(
    r"(?P<moment>\S.*?\d)\s*(?P<offset>[+-]\d\d(?::?\d\d)?)?\s*(?P<zone>utc|gmt|z)?",
    re.IGNORECASE,
)


def seconds(timestamp: float | str, unit: Unit = "auto") -> float:
    """Return float seconds since 1970 from a number, digits in quotes, or a text.

    A text is ISO 8601 or like it: without a zone it is UTC; `UTC`, `GMT` and `z` name UTC; blanks
    may stand around the parts. Eight digits in quotes are a date if they can be one.

    Args:
        timestamp: as it was found.
        unit: unit of numbers; auto tells it by magnitude, see above.

    Raises:
        ValueError: not a time, not finite, negative, or past the year 9999.

    >>> seconds("2013-02-28T14:38:27Z")
    1362062307.0
    >>> seconds("2013-02-28 14:38:27 UTC")
    1362062307.0
    >>> seconds(1362062307000), seconds("1362062307")
    (1362062307.0, 1362062307.0)
    """
    number = number_in(timestamp)
    if number is None or (unit == "auto" and is_date(timestamp)):
        return _checked(_moment(str(timestamp).strip(), unit), timestamp)
    if not math.isfinite(number):
        return _checked(number, timestamp)
    return _checked(number / _PER_SECOND[unit_of(number) if unit == "auto" else unit], timestamp)


def number_in(timestamp: float | str) -> float | None:
    """Return the number of a timestamp that is one, or its digits in quotes; else None.

    >>> number_in(" 1362062307 "), number_in("2013-02-28") is None
    (1362062307.0, True)
    """
    if not isinstance(timestamp, str):
        return float(timestamp)
    text = timestamp.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def unit_of(number: float) -> Unit:
    """Return the unit of a timestamp that its magnitude tells.

    >>> unit_of(1.7e9), unit_of(1.7e12), unit_of(1.7e15), unit_of(1.7e18)
    ('seconds', 'ms', 'us', 'ns')
    """
    number = abs(number)
    if number < MAX_SECONDS:
        return "seconds"
    return "ms" if number < 1e14 else "us" if number < 1e17 else "ns"


def _checked(time: float, timestamp: float | str) -> float:
    if not 0.0 <= time < 253_402_300_800.0:
        raise ValueError(
            f"timestamp {str(timestamp)[:64]} is not a time between 1970 and 9999; seconds"
            " since 1970, or ISO 8601 such as 2024-04-30T18:00:00Z, are expected"
        )
    return time


def is_date(timestamp: float | str) -> bool:
    """Return whether a timestamp is a text of eight digits that are a date.

    >>> is_date("20240430"), is_date("20249999"), is_date(20240430)
    (True, False, False)
    """
    if not isinstance(timestamp, str):
        return False
    text = timestamp.strip()
    return len(text) == 8 and text.isdigit() and _parsed(text) is not None


def _moment(text: str, unit: Unit) -> float:
    moment = _parsed(text)
    if moment is None and (parts := _MOMENT.fullmatch(text)) is not None:
        moment = _parsed(parts["moment"] + (parts["offset"] or ""))
    if moment is None:
        numbers = "seconds since 1970" if unit in ("auto", "seconds") else f"a number of {unit}"
        raise ValueError(
            f"timestamp {text[:64]!r} is neither {numbers} nor ISO 8601, such as"
            " 2024-04-30T18:00:00Z"
        )
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def early(times: Sequence[float]) -> str:
    """Return what is to be said of times (N,) in seconds before 1990, "" if there is none.

    >>> early([20240430.0, 1.7e9])
    '1 timestamp lies before 1990, the first 1970-08-23; if it does not, it is of another unit'
    """
    before = [time for time in times if time < EARLY]
    if not before:
        return ""
    day = datetime.fromtimestamp(min(before), UTC).date()
    lie = "timestamp lies" if len(before) == 1 else "timestamps lie"
    other = "it does not, it is" if len(before) == 1 else "they do not, they are"
    return f"{len(before):,} {lie} before 1990, the first {day}; if {other} of another unit"
