"""Rows as bytes: joined, cut apart, and their checksum."""

import numpy as np
import pytest

from tracker.kernels import row_bytes
from tracker.kernels.row_bytes import (
    DAMAGED,
    OTHER_FORMAT,
    checksum,
    is_sealed,
    join_rows,
    refusal,
    seal,
    split_rows,
)


def words_of(n: int) -> np.ndarray:
    words = np.random.default_rng(n).integers(0, 2**63, n).astype(np.uint64)
    words[0] &= np.uint64(0xFFFFFFFF)
    return words


def test_rows_are_joined_and_cut_apart_again() -> None:
    rows = [words_of(n).tobytes() for n in (3, 1, 7)]
    words, offsets, bad = join_rows([rows[0], None, rows[1], rows[2]])
    assert (offsets.tolist(), bad) == ([0, 3, 3, 4, 11], -1)
    assert split_rows(words, offsets) == [rows[0], b"", rows[1], rows[2]]
    assert join_rows([])[1].tolist() == [0]


@pytest.mark.parametrize("bad", [b"", b"123", bytes(9)])
def test_the_first_row_that_is_not_whole_words_is_named(bad: bytes) -> None:
    assert join_rows([bytes(8), None, bad, bad])[2] == 2


@pytest.mark.parametrize("n", range(1, 12))
def test_every_changed_bit_is_noticed(n: int) -> None:
    words = words_of(n)
    seal(words, 0, n)
    assert is_sealed(words, 0, n)
    for word in range(n):
        for bit in range(64):
            words[word] ^= np.uint64(1 << bit)
            assert not is_sealed(words, 0, n)
            words[word] ^= np.uint64(1 << bit)


def test_a_row_may_stand_anywhere_among_others() -> None:
    alone = words_of(6)
    among = np.concatenate([words_of(3), alone, words_of(2)])
    assert checksum(among, 3, 9) == checksum(alone, 0, 6)
    assert checksum(alone, 0, 5) != checksum(alone, 0, 6)


@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        (b"\x02\x01rest", OTHER_FORMAT, "row 0 has format 258; format 2 is expected (was it w"),
        (b"\x01\x00rest", OTHER_FORMAT, "row 0 has format 1; format 2 is expected; rows of an o"),
        (b"\x03\x00odd", DAMAGED, "row 0 has format 3; format 2 is expected (was it written"),
        (b"\x02\x00odd", DAMAGED, "row 0, 5 bytes, is damaged: its checksum or length does not"),
        (b"\x02", DAMAGED, "row 0, 1 bytes, is damaged: "),
    ],
)
def test_a_refusal_names_the_format_or_the_damage(row: bytes, code: int, message: str) -> None:
    assert refusal("row 0", row, code, 2).startswith(message)


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = words_of(11)
    seal(words, 0, 11)
    monkeypatch.setattr(row_bytes, "checksum", row_bytes.checksum.py_func)  # type: ignore[attr-defined]
    with np.errstate(over="ignore"):  # it wraps around on purpose
        again = words_of(11)
        row_bytes.seal.py_func(again, 0, 11)  # type: ignore[attr-defined]
        assert np.array_equal(again, words)
        assert row_bytes.is_sealed.py_func(words, 0, 11)  # type: ignore[attr-defined]
