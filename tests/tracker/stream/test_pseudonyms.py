"""With a key, no id of a user is in states, in what is sent, or in the log; all else is equal."""

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.api_world import ApiWorld, user_in, with_api
from tests.plane_world import NOW, Make, WorkerState, like, lists
from tests.tracker.stream.test_forget import apply_requests, with_feed
from tests.tracker.stream.test_hand_over import as_read, handed, receive
from tracker.events.wire import OtherEvent, hash_id
from tracker.kafka.forget import pending_of
from tracker.kafka.outbox import Record
from tracker.kafka.partitioner import partition_of
from tracker.kafka.pseudonyms import PseudonymError, Pseudonyms
from tracker.kernels.row_bytes import user_key

KEY, OTHER = "k" * 32, "o" * 32
NAMES = Pseudonyms(KEY)
NEEDLE = b"needle"
NEEDLES = [f"needle-{number}" for number in range(40)]
ADA, BOB, EVE = NEEDLES[:3]


@pytest.fixture
def worlds(tmp_path: Path, make: Make) -> Make:
    def build(key: str | None = KEY, former: str | None = None, **more: Any) -> WorkerState:
        for name, text in (("key", key), ("former_key", former)):
            if text is not None:
                path = tmp_path / f"{hash_id(text)}"
                path.write_text(text)
                more[f"pseudonym_{name}_file"] = path
        return make(**more)

    return build


def rows_of(worker: WorkerState) -> dict[bytes, bytes]:
    database: Any = worker.databases["users"]
    return dict(database.items())


def ids_in(rows: dict[bytes, bytes], records: list[Record]) -> list[bytes]:
    texts = [key + value for key, value in rows.items()]
    texts += [(record.key or b"") + (record.value or b"") for record in records]
    return [text for text in texts if NEEDLE in text]


def events_of_many() -> list[Any]:
    events = [like(user, item, time=NOW - 90 + item) for item in range(12) for user in (ADA, BOB)]
    return [*events, OtherEvent(EVE, timestamp=NOW, retracts="", was=ADA), like(EVE, 3)]


def test_no_record_of_a_state_or_list_has_an_id_and_lists_have_the_pseudonym(worlds: Any) -> None:
    worker = worlds()
    sent = worker.send(*events_of_many())
    outgoing = worker.commit()
    named = {NAMES.of(user) for user in (BOB, EVE)}  # ADA has joined EVE before the lists
    assert {one.user_id for one in lists(sent)} >= named
    assert {(one.key or b"").decode() for one in sent} == {one.user_id for one in lists(sent)}
    rows = rows_of(worker)
    assert ids_in(rows, [*sent, *outgoing]) == []
    assert user_key(NAMES.of(BOB)) in rows
    assert b"s" + NAMES.of(BOB).encode() in rows  # a seen set
    assert worker.head(NAMES.of(EVE), "events") == 13


def test_an_event_that_names_a_pseudonym_is_not_of_the_user_behind_it(worlds: Any) -> None:
    worker = worlds()
    worker.send(like(ADA, 1), like(NAMES.of(ADA), 2))
    assert worker.head(NAMES.of(ADA), "events") == 1
    assert worker.head(NAMES.of(NAMES.of(ADA)), "events") == 1


def test_states_and_item_events_are_bit_by_bit_those_without_a_key(worlds: Any) -> None:
    plain, keyed = worlds(None), worlds()
    answers = [worker.send(*events_of_many()) for worker in (plain, keyed)]
    outgoing = [worker.commit() for worker in (plain, keyed)]
    named = {
        key[:1] + (NAMES.of(key[1:].decode()).encode() if key[:1] in b"uso" else key[1:]): value
        for key, value in rows_of(plain).items()
        if key != b"p"
    }
    assert named == {key: row for key, row in rows_of(keyed).items() if key != b"p"}
    assert [one.value for one in outgoing[0]] == [one.value for one in outgoing[1]]
    found = [[(one.id, one.items) for one in lists(records)] for records in answers]
    assert found[0] == found[1] != []


def test_a_list_that_is_owed_comes_under_the_pseudonym_after_a_crash(worlds: Any) -> None:
    worker = worlds(emit_min_interval_seconds=60.0)
    worker.send(like(ADA))
    assert worker.send(like(ADA, 1)) == []
    worker.commit()
    worker.restart()
    (record,) = worker.users.emit_due()
    assert record.key == NAMES.of(ADA).encode()
    (answer,) = lists([record])
    assert (answer.user_id, answer.id) == (NAMES.of(ADA), "t-events-0-1")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [(None, KEY, "turn pseudonyms on"), (KEY, None, "turn pseudonyms off"), (KEY, OTHER, "change")],
)
def test_a_worker_refuses_states_of_another_key(
    worlds: Any, before: str | None, after: str | None, words: str
) -> None:
    worker, other = worlds(before), worlds(after)
    worker.send(like(ADA))
    worker.commit()
    worker.context = other.context
    with pytest.raises(PseudonymError, match=rf"{words}.*tracker replay"):
        worker.restart()


def test_an_event_is_handed_on_by_its_id_and_kept_under_the_pseudonym(worlds: Any) -> None:
    user = user_in(2)
    source, owner = worlds(hands_over=True), worlds(hands_over=True, partition=2)
    source.send(like(user))
    records = handed(source)
    assert [record.key for record in records] == [user.encode()]
    out = receive(owner, as_read(records))
    assert [one.user_id for one in lists(out)] == [NAMES.of(user)]
    assert owner.head(NAMES.of(user), "events") == 1


def test_a_state_that_is_handed_on_has_no_id_and_joins_its_user(worlds: Any) -> None:
    was, user = user_in(0), user_in(2)
    source, owner = worlds(hands_over=True), worlds(hands_over=True, partition=2)
    source.send(like(was, 1), like(was, 2))
    owner.send(like(user, 3), OtherEvent(user, timestamp=NOW, retracts="", was=was))
    (event,) = handed(owner)
    receive(source, as_read([event]))
    (state,) = handed(source)
    assert state.key == NAMES.of(user).encode()
    assert [name for name in (was, user) if name.encode() in (state.value or b"")] == []
    out = receive(owner, as_read([state]))
    assert [record for record in out if record.topic == "t-rejected"] == []
    assert owner.head(NAMES.of(user), "events") == 3
    assert source.head(NAMES.of(was), "events") == 0
    assert handed(owner) == []


@pytest.mark.parametrize("asked", [ADA, NAMES.of(ADA)])
def test_a_user_is_forgotten_by_the_id_or_by_the_pseudonym(worlds: Any, asked: str) -> None:
    worker = worlds()
    feed = with_feed(worker)
    worker.send(like(ADA, 1), like(BOB, 2), b"{" + NEEDLE)
    worker.commit()
    feed.ask(asked, NOW - 1, everywhere=False)
    apply_requests(worker)
    outgoing = worker.commit()
    mine = [record for record in outgoing if record.topic == "t-forget"]
    (end,) = [record for record in mine if record.value is None]
    assert end.key == asked.encode()
    others = [one for one in mine if one is not end]
    assert ids_in(rows_of(worker), others) == []
    relayed = [record.key for record in others if not (record.key or b"").startswith(b"\0")]
    assert relayed == [NAMES.of(ADA).encode()] * 3
    assert not worker.context.rejections
    assert worker.users.lookup.find(NAMES.of(ADA)) is None
    worker.restart()
    sent = worker.send(like(ADA, 7, time=NOW - 2), like(BOB, 7, time=NOW - 2))
    assert [one.user_id for one in lists(sent)] == [NAMES.of(BOB)]
    worker.send(like(ADA, 8, time=NOW))
    assert worker.head(NAMES.of(ADA), "events") == 1


@pytest.mark.parametrize(("before", "after"), [(None, KEY), (OTHER, KEY), (OTHER, None)])
def test_who_was_forgotten_under_other_names_stays_so_with_the_former_key(
    worlds: Any, before: str | None, after: str | None
) -> None:
    worker, changed, unaware = worlds(before), worlds(after, former=before), worlds(after)
    feed = with_feed(worker)
    worker.send(like(ADA))
    feed.ask(ADA, NOW)
    apply_requests(worker)
    worker.commit()
    (hash_row,) = [(key, row) for key, row in rows_of(worker).items() if key[:1] == b"f"]
    for other in (changed, unaware):  # as `replay` and `reset-state --everything` carry it over
        other.databases["users"][hash_row[0]] = hash_row[1]
    changed.restart()
    assert lists(changed.send(like(ADA, 2, time=NOW - 1))) == []
    if before is not None:
        with pytest.raises(PseudonymError, match=r"1 user was forgotten under .* of the key"):
            unaware.restart()


@pytest.mark.parametrize("damage", [b'[0,0,"0"]', b"[0,0", b'[0,0,"0123456789ABCDEF"]'])
def test_the_hash_of_a_forgotten_user_that_cannot_be_read_is_named_and_set_aside(
    worlds: Any, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worlds(KEY)
    feed = with_feed(worker)
    worker.send(like(ADA))
    feed.ask(ADA, NOW)
    apply_requests(worker)
    worker.commit()
    (key,) = [key for key, _ in rows_of(worker).items() if key[:1] == b"f"]
    worker.databases["users"][key] = damage
    worker.restart()
    assert "key f(hidden): damaged" in caplog.text
    worker.commit()
    assert key not in rows_of(worker)


def test_the_log_has_pseudonyms_also_where_it_may_have_ids(
    worlds: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    worker = worlds(log_user_ids=True, hand_over="off", emit="event")
    away = [name for name in NEEDLES if partition_of(name, 4, "murmur2")]
    worker.send(*[like(user) for user in away[1:]])
    worker.send(OtherEvent(ADA, timestamp=NOW, retracts="", was=away[0]))
    (keyless,) = worker.records(like(BOB))
    keyless.key = None
    worker.users.process([keyless], worker.offset)
    worker.commit()
    assert "tracker_key_mismatch_total" in caplog.text
    assert "tracker_joins_elsewhere_total" in caplog.text
    assert "needle" not in caplog.text
    assert "~" in caplog.text


def test_without_leave_the_log_names_nobody_who_joins_elsewhere(
    worlds: Any, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worlds(None, hand_over="off")
    away = next(name for name in NEEDLES if partition_of(name, 4, "murmur2"))
    worker.send(OtherEvent(ADA, timestamp=NOW, retracts="", was=away))
    assert "user (hidden) was (hidden)" in caplog.text
    assert "needle" not in caplog.text


def test_the_api_answers_for_the_id_and_for_the_pseudonym(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    user = user_in(0)

    async def work(world: ApiWorld) -> None:
        records = world.worker.records(like(user, 1), like(user, 2))
        world.running.accept(0, records)
        await world.running.applied(2)
        _, seen = await world.ask("/users")
        (one,) = seen["users"]
        assert one["user_id"] == NAMES.of(user)
        answers = []
        for name in (user, NAMES.of(user)):
            status, answer = await world.ask(f"/users/{name}")
            assert (status, answer["user_id"]) == (200, name)
            answers.append({key: value for key, value in answer.items() if key != "user_id"})
            status, found = await world.ask(f"/users/{name}/recommendations")
            assert (status, found["known"]) == (200, True)
        assert answers[0] == answers[1]
        assert (await world.ask(f"/users/{user_in(0, skip=1)}"))[0] == 404

    with_api(tmp_path / "w", work, pseudonym_key_file=tmp_path / "key")


def test_a_request_of_another_program_may_have_the_id_as_its_key() -> None:
    class Sent:
        key, value, offset, timestamp = ADA.encode(), b"{}", 4, NOW * 1000

    pending = pending_of(Sent())
    assert pending is not None
    assert NAMES.of_any(pending.user) == NAMES.of(ADA)
