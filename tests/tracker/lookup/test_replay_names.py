"""What a replay takes over follows the names of users, or is refused with what to do."""

import pytest

from tracker.kafka.forget import ForgetRequest, Forgetting, PendingForget
from tracker.kafka.pseudonyms import Pseudonyms
from tracker.lookup.replay import Over, ReplayError, _decoded, under_new_names
from tracker.store.owed import PendingList

KEYED, OTHER, NONE = Pseudonyms("k" * 32), Pseudonyms("o" * 32), Pseudonyms()
REQUEST = PendingForget(b"bob", 3, 5.0, ForgetRequest("r"))


def test_with_the_same_key_everything_is_taken_over_as_it_is() -> None:
    over = Over({b"oada": b"[1]"}, {b"f": b"[2]"}, [REQUEST])
    assert under_new_names(over, "", NONE, "shop") is over
    assert under_new_names(over, KEYED.fingerprint, KEYED, "shop") is over


def test_owed_lists_and_open_requests_get_pseudonyms_when_they_are_turned_on() -> None:
    over = under_new_names(Over({b"oada": b"[1]"}, {}, [REQUEST]), "", KEYED, "shop")
    assert over.lists == {b"o" + KEYED.of("ada").encode(): b"[1]"}
    assert [one.key for one in over.requests] == [KEYED.of("bob").encode()]
    assert over.requests[0].value == REQUEST.value


@pytest.mark.parametrize("now", [NONE, OTHER])
@pytest.mark.parametrize(
    "over", [Over({b"o~x": b"[1]"}, {}, []), Over({}, {}, [REQUEST._replace(key=b"~x")])]
)
def test_what_is_owed_under_another_key_is_refused_with_the_way_there(
    over: Over, now: Pseudonyms
) -> None:
    with pytest.raises(ReplayError, match=r"start the workers of shop again .*owed_lists"):
        under_new_names(over, KEYED.fingerprint, now, "shop")
    assert under_new_names(Over({}, {}, []), KEYED.fingerprint, now, "shop") == Over({}, {}, [])


@pytest.mark.parametrize(("stored", "now"), [("", KEYED), (KEYED.fingerprint, OTHER)])
def test_users_who_were_forgotten_meanwhile_ask_for_a_new_replay(
    stored: str, now: Pseudonyms
) -> None:
    with pytest.raises(ReplayError, match=r"1 users were forgotten .* begin the replay again"):
        under_new_names(Over({}, {b"f": b"[2]"}, []), stored, now, "shop")


@pytest.mark.parametrize("what", [PendingList, Forgetting])
@pytest.mark.parametrize("damage", [b"", b"[0", b'["x"]', b"\xff"])
def test_row_of_the_live_states_that_cannot_be_read_ends_with_what_to_do(
    what: type, damage: bytes
) -> None:
    with pytest.raises(ReplayError, match="start their workers once"):
        _decoded(damage, what)
