"""Rows of states as bytes: joined for the kernels, cut apart again, and their checksum.

Every row is a whole number of 8-byte words. Word 0 begins with the format number (uint16) and ends
with a checksum (uint32) of everything else in the row.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from tracker.explained import Explained
from tracker.kernels.native import native

Array = NDArray[Any]

Slots = NDArray[np.int64]
"""Places in an arena."""

Get = Callable[[list[bytes]], list[bytes | None]]
"""Reads rows by their keys, None for those that are not there."""


@native
def checksum(words: Array, start: int, end: int) -> np.uint64:
    """Return the 32-bit checksum of a row: words [start, end) but for the upper half of the first.

    Four lanes of multiplications, so that it costs a fraction of a microsecond; it is for
    accidents (an altered row passes once in 2^32), not for attacks.
    """
    prime = np.uint64(0x9E3779B97F4A7C15)
    half = np.uint64(32)
    a = ((words[start] & np.uint64(0xFFFFFFFF)) ^ np.uint64(end - start)) * prime
    b = c = d = prime
    body = words[start + 1 : end]
    whole = body.shape[0] >> 2
    for i in range(whole):
        at = i << 2
        a = (a ^ body[at]) * prime
        b = (b ^ body[at + 1]) * prime
        c = (c ^ body[at + 2]) * prime
        d = (d ^ body[at + 3]) * prime
        a ^= a >> half
        b ^= b >> half
        c ^= c >> half
        d ^= d >> half
    for at in range(whole << 2, body.shape[0]):
        a = (a ^ body[at]) * prime
        a ^= a >> half
    a = (a ^ b) * prime
    a = (a ^ (a >> half) ^ c) * prime
    a = (a ^ (a >> half) ^ d) * prime
    return np.uint64(a >> half)


@native
def seal(words: Array, start: int, end: int) -> None:
    """Write the checksum into a row whose upper half of the first word is zero."""
    words[start] |= checksum(words, start, end) << np.uint64(32)


@native
def is_sealed(words: Array, start: int, end: int) -> bool:
    """Return whether a row is as it was sealed."""
    return bool((words[start] >> np.uint64(32)) == checksum(words, start, end))


def join_rows(rows: Sequence[bytes | None]) -> tuple[Array, NDArray[np.int64], int]:
    """Lay rows one after another.

    Returns:
        words uint64, read-only; offsets (n + 1,) int64 in words, a row of None having none; and
        the position of the first row that is not a whole number of words or empty, else -1.
    """
    sizes = np.fromiter((len(row) if row is not None else 0 for row in rows), np.int64, len(rows))
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(sizes >> 3, out=offsets[1:])
    for i in np.flatnonzero((sizes & 7 != 0) | (sizes == 0)).tolist():
        if rows[i] is not None:
            return np.zeros(0, np.uint64), offsets, i
    data = b"".join([row for row in rows if row is not None])
    return np.frombuffer(data, np.uint64), offsets, -1


def split_rows(words: Array, offsets: NDArray[np.int64]) -> list[bytes]:
    """Cut rows apart; offsets (n + 1,) in words."""
    data = words[: offsets[-1]].tobytes()
    ends = (offsets * 8).tolist()
    return [data[start:end] for start, end in pairwise(ends)]


# Why a kernel refuses a row; 0 stands for a row that can be read.

OTHER_FORMAT = 1
"""The row begins with another format number."""
DAMAGED = 2
"""The row's checksum or length does not agree."""
OTHER_LAYOUT = 3
"""The row was written with other dimensions than those in use."""
NEWER_ARTIFACT = 4
"""The row was written with a newer artifact than the reader may use."""


class NewerRowError(Explained):
    """A row has a format above the one that this version reads; it must not be written over."""

    def __init__(self, what: str, row: bytes, expected: int) -> None:
        super().__init__(
            f"{what} has format {format_of(row)}, and this version reads {expected}: a newer"
            " version wrote it; run that version"
        )


class DamagedRowError(Explained, ValueError):
    """A row cannot be read, and the settings say to stop then."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(
            f"{what} cannot be read ({problem}), and TRACKER_DAMAGED_ROWS is stop: with set-aside"
            " the row is kept under another key, and a new one begins"
        )


def format_of(row: bytes) -> int:
    """Return the format number that a row begins with, -1 if it is too short for one."""
    return int.from_bytes(row[:2], "little") if len(row) >= 2 else -1


def problem_with(row: bytes, expected: int) -> str:
    """Return why a row that was refused cannot be read: `damaged`, `newer` or `older`.

    Rows of all formats are sealed alike, so that one of another format is told from a damaged one.

    Args:
        row: its bytes.
        expected: format number that this version reads.
    """
    if len(row) % 8 or not row:
        return "damaged"
    words = np.frombuffer(row, np.uint64)
    version = format_of(row)
    if version == expected or not is_sealed(words, 0, len(words)):
        return "damaged"
    return "newer" if version > expected else "older"


def refusal(what: str, row: bytes, code: int, expected: int) -> str:
    """Return why a row cannot be read: its format number is another one, or it is damaged.

    Args:
        what: name of the row, such as `user row 1 of 2`.
        row: its bytes, of any length.
        code: OTHER_FORMAT or DAMAGED, as the kernel that checks rows returned it.
        expected: format number that this version reads.
    """
    version = format_of(row)
    if code == OTHER_FORMAT or version not in (-1, expected):
        remedy = (
            " (was it written by a newer version?)"
            if version > expected
            else "; rows of an older version cannot be read: stop all workers and run"
            " `tracker reset-state --everything`, which rebuilds the states from the events still"
            " kept"
        )
        return f"{what} has format {version}; format {expected} is expected{remedy}"
    return f"{what}, {len(row)} bytes, is damaged: its checksum or length does not agree"


# The keys of all rows of a partition; a prefix is one byte.

POSITION_KEY = b"p"
"""Key of the position: up to which offset the source is in the states."""

LEARNED_KEY = b"l"
"""Key of what the partition has learned online; committed together with the position."""

USER_PREFIX = b"u"
SEEN_PREFIX = b"s"
OWED_PREFIX = b"o"
ITEM_PREFIX = b"i"
FORGOTTEN_PREFIX = b"f"
"""Before salt and hash of a user who was forgotten."""
ASIDE_PREFIX = b"x"
"""Before the key of a row that was set aside because it cannot be read."""
WAITING_PREFIX = ASIDE_PREFIX + b"w"
"""Before the hash of an item that has no row yet. Releases that know none pass it over as a row
that was set aside."""

HIDDEN = "(hidden)"
"""Text in the place of a user's id in a log, unless `TRACKER_LOG_USER_IDS` is true."""


def user_key(user_id: str) -> bytes:
    """Return the key of a user's state."""
    return USER_PREFIX + user_id.encode()


def seen_key(user_id: str) -> bytes:
    """Return the key of the set of items that a user with a long history has seen."""
    return SEEN_PREFIX + user_id.encode()


def owed_key(user_id: str) -> bytes:
    """Return the key of a list that is postponed."""
    return OWED_PREFIX + user_id.encode()


def keys_of_user(user_id: str) -> list[bytes]:
    """Return all keys that rows of a user may have; those of rows set aside among them."""
    keys = [user_key(user_id), seen_key(user_id), owed_key(user_id)]
    return keys + [ASIDE_PREFIX + key for key in keys]


def user_of(key: bytes) -> str:
    """Return the user id in the key of a state, a seen set or a postponed list.

    Bytes that are not UTF-8, which no worker writes, are replaced by U+FFFD.
    """
    return key[1:].decode(errors="replace")


def owner_of(key: bytes) -> bytes | None:
    """Return the name of the user whose row has a key, set aside or not; None for other rows.

    >>> owner_of(b"uada"), owner_of(b"xsada"), owner_of(b"p"), owner_of(b"xw12345678")
    (b'ada', b'ada', None, None)
    """
    bare = key.removeprefix(ASIDE_PREFIX)
    is_of_user = bare[:1] in (USER_PREFIX, SEEN_PREFIX, OWED_PREFIX)
    return bare[1:] if is_of_user and len(bare) > 1 else None


def item_key(item: int) -> bytes:
    """Return the key of an item's row, from the item's hash."""
    return ITEM_PREFIX + item.to_bytes(8, "big")


def key_text(key: bytes | None, user_ids: bool = False) -> str:
    r"""Return a key of a changelog as text: its prefix, then the rest, as hexadecimal if need be.

    Args:
        key: of a row.
        user_ids: whether ids of users may be in a log; without, only keys of items are told.

    >>> key_text(b"uada", True), key_text(b"i\x00\xff"), key_text(None), key_text(b"uada")
    ('uada', 'i00ff', 'none', 'u(hidden)')
    """
    if key is None:
        return "none"
    bare = key.removeprefix(ASIDE_PREFIX)
    if not user_ids and len(key) > 1 and bare[:1] not in (ITEM_PREFIX, b""):
        return key[: len(key) - len(bare) + 1].decode("latin-1") + HIDDEN
    rest = key[1:65]
    is_text = rest.isascii() and rest.decode("ascii").isprintable()
    return key[:1].decode("latin-1") + (rest.decode("ascii") if is_text else rest.hex())


def is_item_key(key: bytes | None) -> TypeGuard[bytes]:
    """Return whether a key is one that `item_key` makes."""
    return key is not None and len(key) == 9 and key[:1] == ITEM_PREFIX


def item_of(key: bytes) -> int:
    """Return the hash in the key of an item's row."""
    return int.from_bytes(key[1:], "big")


def readable_rows(
    keys: Sequence[bytes],
    rows: Sequence[bytes | None],
    problem_of: Callable[[bytes], str | None],
    expected: int,
    on_damaged: Callable[[list[bytes]], object],
    on_unreadable: Callable[[bytes, bytes, str], object],
) -> list[bytes | None]:
    """Return rows with None in the place of those that cannot be read, and report these.

    Args:
        keys: of the rows.
        rows: None for those that are not there.
        problem_of: names what is wrong with a row: `damaged`, `newer`, `older`, `layout`; or None.
        expected: the format that is read.
        on_damaged: called once with the keys of damaged rows, before any of them is replaced.
        on_unreadable: called with key, row and problem of each that cannot be read.

    Raises:
        NewerRowError: a newer version wrote a row; nothing was reported.
    """
    problems = [None if row is None else problem_of(row) for row in rows]
    for key, row, problem in zip(keys, rows, problems, strict=True):
        if problem == "newer":
            raise NewerRowError(f"the row with key {key_text(key)}", row or b"", expected)
    damaged = [key for key, problem in zip(keys, problems, strict=True) if problem == "damaged"]
    if damaged:
        on_damaged(damaged)
    readable = list(rows)
    for place, problem in enumerate(problems):
        if problem is not None:
            on_unreadable(keys[place], rows[place] or b"", problem)
            readable[place] = None
    return readable
