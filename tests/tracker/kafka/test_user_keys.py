"""Keys of users are wrapped by the key of pseudonyms, and deleted for good."""

import pytest

from tracker.kafka.pseudonyms import Pseudonyms
from tracker.kafka.user_keys import KEY_BYTES, UserKeyError, UserKeys, check_encrypted

ADA, BOB = b"~ada", b"~bob"
NAMES = Pseudonyms("k" * 32)


def keys_of(names: Pseudonyms = NAMES) -> UserKeys:
    return UserKeys(names, "t-user-keys", 3)


def test_a_key_is_made_once_and_read_again_from_its_record() -> None:
    keys, again = keys_of(), keys_of()
    key = keys.make(ADA)
    assert len(key) == KEY_BYTES
    assert keys.make(ADA) == keys.get(ADA) == key != keys.make(BOB)
    records = keys.records(keys.take_changes())
    assert [(r.topic, r.partition, r.key) for r in records] == [
        ("t-user-keys", 3, ADA),
        ("t-user-keys", 3, BOB),
    ]
    for record in records:
        again.learn(record.key or b"", record.value)
    assert (again.get(ADA), again.get(BOB)) == (key, keys.get(BOB))
    assert again.take_changes() == keys.take_changes() == {}


def test_a_record_has_no_byte_of_the_key_in_the_clear() -> None:
    keys = keys_of()
    key = keys.make(ADA)
    value = keys.take_changes()[ADA] or b""
    assert not any(key[at : at + 4] in value for at in range(KEY_BYTES - 4))


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "format", "of another", "other key"])
def test_a_record_that_is_damaged_of_another_user_or_of_another_wrapping_gives_no_key(
    damage: str,
) -> None:
    keys = keys_of()
    keys.make(ADA)
    value = keys.take_changes()[ADA] or b""
    again = keys_of(Pseudonyms("o" * 32) if damage == "other key" else NAMES)
    changed = {
        "flipped": value[:-1] + bytes([value[-1] ^ 1]),
        "cut": value[:10],
        "empty": b"",
        "format": b"\2" + value[1:],
    }.get(damage, value)
    user = BOB if damage == "of another" else ADA
    again.learn(user, changed)
    assert (again.get(user), again.unreadable) == (b"", 1)
    assert len(again.make(user)) == KEY_BYTES  # what comes from now on has one
    assert again.unreadable == 0


def test_a_deleted_key_is_deleted_in_the_topic_and_the_next_one_is_another() -> None:
    keys = keys_of()
    key = keys.make(ADA)
    keys.take_changes()
    keys.delete(ADA)
    keys.delete(BOB)  # who has none
    assert keys.get(ADA) is None
    assert keys.take_changes() == {ADA: None}
    assert keys.make(ADA) != key
    assert keys.take_changes()[ADA] is not None
    keys.learn(ADA, None)
    assert keys.get(ADA) is None


def test_records_of_a_commit_that_failed_go_with_the_next_one_but_for_newer_ones() -> None:
    keys = keys_of()
    keys.make(ADA)
    keys.make(BOB)
    failed = keys.take_changes()
    keys.delete(ADA)
    keys.restore_changes(failed)
    assert keys.take_changes() == {ADA: None, BOB: failed[BOB]}


def test_without_pseudonyms_there_are_no_keys() -> None:
    with pytest.raises(ValueError, match="no pseudonyms"):
        UserKeys(Pseudonyms(), "t-user-keys", 0)


@pytest.mark.parametrize(
    ("stored", "mine", "words"),
    [(True, False, "TRACKER_USER_KEYS is not set"), (False, True, "TRACKER_USER_KEYS is true")],
)
def test_states_with_keys_and_settings_without_are_refused_and_the_other_way_round(
    stored: bool, mine: bool, words: str
) -> None:
    with pytest.raises(UserKeyError, match=rf"the states of e .*{words}.*`tracker replay`"):
        check_encrypted("the states of e", stored, mine)
    check_encrypted("the states of e", stored, stored)
