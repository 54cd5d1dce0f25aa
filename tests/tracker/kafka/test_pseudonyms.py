"""Pseudonyms are keyed hashes of ids, the same at every time, and keys are told apart by name."""

from pathlib import Path
from typing import Any

import pytest

from tracker.kafka.pseudonyms import (
    PseudonymError,
    Pseudonyms,
    check_forgotten,
    check_names,
    fingerprint_of,
    pseudonyms_of,
)
from tracker.settings import SettingsError, load_settings

KEY, OTHER = "k" * 32, "o" * 32


def test_a_pseudonym_is_the_same_in_every_release() -> None:
    pseudonyms = Pseudonyms(KEY)
    assert pseudonyms.of("ada") == "~FxagMGLQLs3YITlZVQlxg9xq"
    assert pseudonyms.fingerprint == fingerprint_of(KEY) == "f4d006f80a108897"


def test_every_id_and_every_key_gives_another_pseudonym() -> None:
    ids = [f"user-{number}" for number in range(2000)]
    names = Pseudonyms(KEY).of_all([*ids, *ids]) + Pseudonyms(OTHER).of_all(ids)
    assert names[:2000] == names[2000:4000]
    assert len(set(names)) == 4000
    assert {len(name) for name in names} == {25}


def test_without_a_key_users_keep_their_ids() -> None:
    none = Pseudonyms()
    assert not none
    assert (none.of("ada"), none.of_any("ada"), none.fingerprint) == ("ada", "ada", "")
    assert none.of_all(["ada", "bob"]) == ["ada", "bob"]
    pseudonym = Pseudonyms(KEY).of("ada")
    assert none.of_any(pseudonym) == pseudonym
    assert not none.is_pseudonym(pseudonym)


def test_who_asks_may_give_the_id_or_the_pseudonym_and_an_event_only_the_id() -> None:
    pseudonyms = Pseudonyms(KEY)
    name = pseudonyms.of("ada")
    assert pseudonyms.of_any("ada") == pseudonyms.of_any(name) == name
    assert pseudonyms.of(name) != name
    assert pseudonyms.of_any("~short") == pseudonyms.of("~short")


def test_a_forgotten_user_is_known_by_the_former_key_and_by_the_id() -> None:
    changed = Pseudonyms(KEY, former=OTHER)
    assert changed.every_name("ada") == (
        "ada",
        Pseudonyms(KEY).of("ada"),
        Pseudonyms(OTHER).of("ada"),
    )
    check_forgotten(changed, ["", fingerprint_of(KEY), fingerprint_of(OTHER)])
    turned_off = Pseudonyms(None, former=OTHER)
    assert turned_off.every_name("ada") == ("ada", Pseudonyms(OTHER).of("ada"))
    with pytest.raises(PseudonymError, match=r"2 users were forgotten .*FORMER_KEY_FILE"):
        check_forgotten(Pseudonyms(KEY), ["", fingerprint_of(OTHER), fingerprint_of(OTHER)])


@pytest.mark.parametrize(
    ("stored", "mine", "words"),
    [
        ("", "b", ["name users by their ids", "to turn pseudonyms on", "tracker replay"]),
        ("a", "", ["the key a", "is not set", "to turn pseudonyms off", "tracker replay"]),
        ("a", "b", ["the key a", "has the key b", "to change the key", "tracker replay"]),
    ],
)
def test_states_of_another_key_are_refused_in_one_line(
    stored: str, mine: str, words: list[str]
) -> None:
    with pytest.raises(PseudonymError) as refusal:
        check_names("the states of t-events", stored, mine)
    text = str(refusal.value)
    assert "\n" not in text
    assert [word for word in [*words, "TRACKER_PSEUDONYM_KEY_FILE"] if word not in text] == []
    check_names("the states", mine, mine)


def settings_with(path: Path, text: str | None) -> Any:
    if text is not None:
        path.write_text(text)
    return load_settings({"TRACKER_PSEUDONYM_KEY_FILE": str(path)})


def test_spaces_around_a_key_do_not_count(tmp_path: Path) -> None:
    found = pseudonyms_of(settings_with(tmp_path / "key", f" {KEY}\r\n"))
    assert found.fingerprint == fingerprint_of(KEY)


@pytest.mark.parametrize(("text", "words"), [("short\n", "with 5 characters"), (None, "cannot be")])
def test_a_short_or_missing_key_is_refused_by_name(
    tmp_path: Path, text: str | None, words: str
) -> None:
    settings = settings_with(tmp_path / "key", text)
    with pytest.raises(SettingsError, match=f"TRACKER_PSEUDONYM_KEY_FILE is .*{words}"):
        pseudonyms_of(settings)
