"""Events on the wire: decoding, times, hashes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tracker.events.wire import (
    REASONS,
    Event,
    RejectedEventError,
    decode_event,
    encode_event,
    hash_id,
    kind_code,
    scene_code,
)


def test_hashes_never_meet_the_mark_for_none() -> None:
    assert hash_id("") != 0
    assert scene_code(None) == scene_code("") == 0
    assert scene_code("home") != 0
    assert kind_code("view") != 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_an_event_or_a_named_rejection(value: bytes) -> None:
    try:
        reason = None
        decode_event(value)
    except RejectedEventError as error:
        reason = error.reason
    assert reason is None or reason in REASONS


_IDS = st.text(min_size=1, max_size=20, alphabet=st.characters(exclude_categories=["Cs"]))


@given(_IDS, _IDS, st.floats(0, 1e9), st.none() | _IDS, st.none() | st.floats(-1e6, 1e6))
def test_an_encoded_event_is_read_back_as_it_was(
    user: str, item: str, time: float, scene: str | None, value: float | None
) -> None:
    event = Event(user, item, "view", time, scene, value)
    assert decode_event(encode_event(event)) == event
