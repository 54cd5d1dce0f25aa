"""Inputs of the fuzzing: samples that are changed at random, and objects near to real ones."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st

from tracker.kernels.row_bytes import seal

ODD_TEXTS = (
    "", "0", "-1", "1e400", "nan", "\0", "\ud800", "²", "[", "{", "[]", "{}", '["a"]', "a" * 300,
    "9" * 400, "2024-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:60", "=",
    "a[0].b", "a[]", "a[k=v]",
)  # fmt: skip

ODD_NUMBERS = (
    0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 0.0, -0.0, 1e-320, 1e38,
    3.5e38, 1e300, -1e300, 1.7e9, 1.7e12, 1.7e18,
)  # fmt: skip

texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=12))

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(ODD_NUMBERS),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)

values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


def encoded(value: Any) -> bytes:
    """Return a value as JSON; texts that are no UTF-8 as escapes."""
    return json.dumps(value).encode()


@st.composite
def changed(draw: Any, samples: Sequence[bytes], most: int = 6) -> bytes:
    """Return a sample with some bytes changed, put in, left out or repeated."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        what = draw(st.integers(0, 5))
        if what == 0 and data:
            data[at] = draw(st.integers(0, 255))
        elif what == 1:
            width = draw(st.sampled_from((2, 4, 8)))
            number = draw(st.sampled_from((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**64 - 1)))
            data[at : at + width] = (number % 256**width).to_bytes(width, "little")
        elif what == 2:
            data[at:at] = draw(st.binary(max_size=16))
        elif what == 3:
            del data[at : at + draw(st.integers(1, 16))]
        elif what == 4:
            data[at:at] = data[at : at + draw(st.integers(1, 32))]
        else:
            float_at = at // 8 * 8
            number = draw(st.sampled_from((np.nan, np.inf, -1e308, 1e308, 0.0, -0.0, 5e-324)))
            data[float_at : float_at + 8] = np.float64(number).tobytes()
    return bytes(data)


def resealed(row: bytes) -> bytes:
    """Return a row with the checksum that belongs to it, if it is whole words."""
    if not row or len(row) % 8:
        return row
    words = np.frombuffer(row, np.uint64).copy()
    words[0] &= np.uint64(0xFFFFFFFF)
    seal(words, 0, len(words))
    return words.tobytes()


def rows(samples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return rows that are damaged, most of them under a checksum that is right."""
    some = changed(samples)
    return st.one_of(some.map(resealed), some.map(resealed), some)


@st.composite
def objects(draw: Any, samples: Sequence[dict[str, Any]], most: int = 4) -> dict[str, Any]:
    """Return an object with some fields, at any depth, changed, left out or put in."""
    whole: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(draw(st.sampled_from(samples))))
    for _ in range(draw(st.integers(0, most))):
        place: Any = whole
        while True:
            names: Any = list(place) if isinstance(place, dict) else range(len(place))
            name = draw(st.sampled_from(names)) if len(names) else None
            inner = None if name is None else place[name]
            if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
                break
            place = inner
        if name is None:
            continue
        what = draw(st.integers(0, 3))
        if what == 0:
            del place[name]
        elif what == 1 and isinstance(place, dict):
            place[draw(texts)] = draw(values)
        else:
            place[name] = draw(values)
    return whole


def lines(one: st.SearchStrategy[bytes], most: int = 5) -> st.SearchStrategy[bytes]:
    """Return files of such lines."""
    joined: Callable[[list[bytes]], bytes] = b"\n".join
    return st.lists(one, max_size=most).map(joined)
