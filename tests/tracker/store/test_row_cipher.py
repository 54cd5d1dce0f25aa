"""Rows of users are encrypted with their keys, each under its own record's key."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.kafka.pseudonyms import Pseudonyms
from tracker.kafka.user_keys import UserKeys
from tracker.kernels.row_bytes import POSITION_KEY, owner_of, problem_with
from tracker.store.row_cipher import RowCipher

ROW = b"a row of eight times some bytes " * 4
GOLDEN = Path(__file__).parents[2] / "golden"


def cipher_of_one() -> RowCipher:
    return RowCipher(UserKeys(Pseudonyms("k" * 32), "t-user-keys", 0))


def encrypted(cipher: RowCipher, key: bytes, row: bytes = ROW) -> bytes:
    ((_, value),) = cipher.encrypt([(key, row)])
    assert value is not None
    return value


@pytest.mark.parametrize("key", [b"u~ada", b"s~ada", b"o~ada", b"xu~ada", b"xs~ada", b"xo~ada"])
def test_every_row_of_a_user_is_encrypted_and_read_again(key: bytes) -> None:
    cipher = cipher_of_one()
    value, again = encrypted(cipher, key), encrypted(cipher, key)
    assert value != again  # another nonce
    assert not any(ROW[at : at + 6] in value for at in range(32))
    assert cipher.decrypt(key, value) == cipher.decrypt(key, again) == ROW


@pytest.mark.parametrize("key", [POSITION_KEY, b"l", b"f" + b"h" * 32, b"xl", b"i" + b"8" * 8])
def test_rows_that_are_no_users_stay_as_they_are(key: bytes) -> None:
    cipher = cipher_of_one()
    assert cipher.encrypt([(key, ROW), (b"u~ada", None)]) == [(key, ROW), (b"u~ada", None)]
    assert cipher.decrypt(key, ROW) == ROW
    assert cipher.decrypt(b"u~ada", None) is None
    assert cipher.keys.take_changes() == {}


@pytest.mark.parametrize("place", [b"u~bob", b"s~ada", b"xu~ada"])
def test_a_row_in_the_place_of_another_is_damaged(place: bytes) -> None:
    cipher = cipher_of_one()
    value = encrypted(cipher, b"u~ada")
    encrypted(cipher, b"u~bob")
    found = cipher.decrypt(place, value)
    assert found != ROW
    assert found is None or problem_with(found, 1) == "damaged"
    if owner_of(place) == b"~ada":
        assert found is not None


def test_every_altered_byte_is_damage_and_one_in_the_name_of_the_key_does_no_harm() -> None:
    cipher = cipher_of_one()
    value = encrypted(cipher, b"u~ada")
    for at in range(len(value)):
        altered = value[:at] + bytes([value[at] ^ 4]) + value[at + 1 :]
        found = cipher.decrypt(b"u~ada", altered)
        if 2 <= at < 6:
            assert found == ROW
        else:
            assert found is not None
            assert problem_with(found, 1) == "damaged"


@pytest.mark.parametrize("value", [b"", b"1", ROW, b"[5,1.5,null,false]", b"\1\1" + b"x" * 20])
def test_what_no_key_has_encrypted_is_no_row(value: bytes) -> None:
    cipher = cipher_of_one()
    encrypted(cipher, b"u~ada")
    found = cipher.decrypt(b"u~ada", value)
    assert found is None or (found[:1] == b"\0" and len(found) % 8 and found != value)


def test_a_row_whose_key_is_gone_is_gone_and_one_whose_key_is_damaged_is_damaged() -> None:
    cipher = cipher_of_one()
    value, other = encrypted(cipher, b"u~ada"), encrypted(cipher, b"u~bob")
    cipher.keys.delete(b"~ada")
    assert cipher.decrypt(b"u~ada", value) is None
    assert cipher.decrypt_all({b"u~ada": value, b"u~bob": other, b"p": b"1"}) == {
        b"u~bob": ROW,
        b"p": b"1",
    }
    new = encrypted(cipher, b"u~ada")  # the user comes back, with another key
    assert cipher.decrypt(b"u~ada", value) is None
    assert cipher.decrypt(b"u~ada", new) == ROW
    cipher.keys.learn(b"~ada", b"damage")
    assert problem_with(cipher.decrypt(b"u~ada", new) or b"", 1) == "damaged"


def test_rows_and_keys_of_every_version_are_read() -> None:
    cipher = cipher_of_one()
    cipher.keys.learn(b"~ada", (GOLDEN / "user_key_1.bin").read_bytes())
    assert cipher.decrypt(b"u~ada", (GOLDEN / "encrypted_row_1.bin").read_bytes()) == ROW


@given(st.binary(max_size=80), st.sampled_from([b"u~ada", b"o~ada", b"xs~ada", b"u~eve"]))
def test_no_bytes_are_taken_for_a_row_and_none_raise(value: bytes, key: bytes) -> None:
    cipher = cipher_of_one()
    cipher.keys.make(b"~ada")
    found = cipher.decrypt(key, value)
    assert found is None or problem_with(found, 1) == "damaged"
    cipher.keys.learn(b"~ada", value)
    assert cipher.keys.get(b"~ada") == b""
