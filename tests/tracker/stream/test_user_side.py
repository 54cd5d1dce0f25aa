"""UserSide: events into states, lists by policy, item events with the commit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from indexer.items.tower_items import make_tower
from tests.plane_world import NOW, Make, WorkerState, like, lists, small_artifact
from tests.tracker.encoder.test_tower import fitted
from tracker.artifact.models import Models
from tracker.events.item_events import decode_blocks
from tracker.events.wire import Event, hash_id
from tracker.store.arena import ArenaFullError
from tracker.stream import user_side
from tracker.stream.metrics import OUTCOMES
from tracker.stream.serving import Serving, make_serving
from tracker.users.states import NewerArtifactError


def test_chunk_gives_each_user_one_list_that_names_the_last_event(make: Make) -> None:
    worker = make()
    found = lists(worker.send(like("a", 0), like("b", 1), like("a", 2, scene="home")))
    assert [(one.user_id, one.id) for one in found] == [
        ("b", "t-events-0-1"),
        ("a", "t-events-0-2"),
    ]
    (b, a) = found
    assert (a.scene, b.scene) == ("home", None)
    assert a.artifact == "v1"
    assert len(a.items) == 10
    assert a.timestamp == NOW
    assert worker.users.store.progress.position == 3
    assert worker.head("a", "events") == 2
    assert worker.count("events") == 3
    assert worker.count("outcomes", outcome="applied") == 3


def test_recommendations_go_to_the_partition_of_their_events_keyed_by_user(make: Make) -> None:
    (record,) = make().send(like("a"))
    assert (record.topic, record.partition, record.key) == ("t-recommendations", 0, b"a")


def test_every_event_gets_a_list_of_the_state_after_it(make: Make) -> None:
    together, singly = make(emit="event"), make(emit="event")
    events = [like("a", 0), like("b", 1), like("a", 3), like("a", 5)]
    found = lists(together.send(*events))
    assert sorted(one.id for one in found) == [f"t-events-0-{n}" for n in range(4)]
    expected = [lists(singly.send(event))[0] for event in events]
    by_id = {one.id: one for one in found}
    assert [by_id[one.id].items for one in expected] == [one.items for one in expected]
    offsets = decode_blocks([r.value or b"" for r in together.users.take_outgoing()])
    assert sorted(offsets["source_offset"].tolist()) == [0, 1, 2, 3]


def test_list_that_did_not_change_is_not_sent_again(make: Make) -> None:
    worker = make(emit="changed")
    assert len(lists(worker.send(like("a", 0)))) == 1
    repeat = Event("a", None, None, NOW, retracts="never seen")
    assert lists(worker.send(repeat)) == []
    assert len(lists(worker.send(like("a", 1)))) == 1


def test_interval_holds_lists_back_and_the_last_one_follows(make: Make) -> None:
    worker = make(emit_min_interval_seconds=10.0)
    assert len(lists(worker.send(like("a", 0)))) == 1
    worker.now += 3.0
    assert lists(worker.send(like("a", 2, scene="cart"), like("a", 4, scene="home"))) == []
    assert worker.users.pending() == 1
    assert worker.users.emit_due() == []
    assert worker.users.due_at(True) == NOW + 10.0
    worker.now = NOW + 10.0
    (trailing,) = lists(worker.users.emit_due())
    assert (trailing.id, trailing.scene) == ("t-events-0-2", "home")
    assert worker.users.pending() == 0
    assert trailing.latency_ms == pytest.approx(10_000.0)


def test_owed_list_survives_a_crash(make: Make) -> None:
    worker = make(emit_min_interval_seconds=10.0)
    worker.send(like("a", 0))
    worker.send(like("a", 2))
    worker.commit()
    worker.restart()
    assert worker.users.due_at(True) == NOW
    (trailing,) = lists(worker.users.emit_due())
    assert trailing.id == "t-events-0-1"
    worker.commit()
    worker.restart()
    assert worker.users.pending() == 0


def test_backlog_gives_each_user_one_list_at_its_end(make: Make) -> None:
    worker = make(max_event_age_seconds=60.0)
    old = NOW - 1000.0
    assert lists(worker.send(like("a", 0, time=old), like("b", 1, time=old))) == []
    assert lists(worker.send(like("a", 2, time=old))) == []
    assert worker.users.due_at(False) is None
    assert worker.users.due_at(True) == NOW
    found = lists(worker.users.emit_due())
    assert sorted((one.user_id, one.id) for one in found) == [
        ("a", "t-events-0-2"),
        ("b", "t-events-0-1"),
    ]
    assert worker.head("a", "events") == 2


def test_fresh_event_ends_the_backlog(make: Make) -> None:
    worker = make(max_event_age_seconds=60.0)
    found = lists(worker.send(like("a", 0, time=NOW - 1000.0), like("b", 1)))
    assert [one.user_id for one in found] == ["b"]
    assert worker.users.due_at(False) == NOW


def test_stream_time_never_goes_back_and_is_kept_with_the_position(make: Make) -> None:
    worker = make()
    (first,) = lists(worker.send(like("a", 0, time=NOW + 50.0)))
    (late,) = lists(worker.send(like("b", 1, time=NOW - 500.0)))
    assert first.timestamp == late.timestamp == NOW + 50.0
    worker.commit()
    worker.restart()
    (again,) = lists(worker.send(like("b", 1, time=NOW)))
    assert again.timestamp == NOW + 50.0


def test_bad_records_are_rejected_with_their_bytes_and_the_rest_goes_on(make: Make) -> None:
    worker = make()
    out = worker.send(b"{", like("a", 0), None, like("b", kind="teleport"))
    rejected = [record for record in out if record.topic == "t-rejected"]
    assert [dict(record.headers)["offset"] for record in rejected] == [b"0", b"2", b"3"]
    assert rejected[0].value == b"{"
    assert len(lists(out)) == 1
    assert worker.users.store.progress.position == 4
    assert worker.count("rejected", reason="unknown_kind") == 1
    assert worker.head("a", "last_offset") == 1


def test_chunk_of_bad_records_only_moves_the_position(make: Make) -> None:
    worker = make()
    worker.send(b"{", b"[]")
    assert worker.users.store.progress.position == 2
    assert worker.users.store.needs_commit


def test_key_that_is_not_its_user_is_counted_and_taken(make: Make) -> None:
    worker = make()
    records = worker.records(b"{", like("a"), like("b"))
    records[2].key = b"somebody"
    assert len(lists(worker.users.process(records, 3))) == 2
    assert worker.count("key_mismatch", cause="other_key") == 1


def test_ratings_beyond_the_scale_are_counted_and_said_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make()
    worker.send(*(like("a", n, kind="rate", value=value) for n, value in enumerate((9, 0, 5, -1))))
    worker.send(like("b", 4, kind="rate", value=77))
    assert worker.count("ratings_beyond_scale") == 3
    said = [text for text in caplog.messages if "outside the scale of the artifact, 1 to 5" in text]
    assert len(said) == 1


def test_duplicates_and_retractions_are_counted_by_outcome(make: Make) -> None:
    worker = make()
    worker.send(like("a", 0, event_id="e1"), like("a", 0, event_id="e1"))
    worker.send(Event("a", None, None, NOW, retracts="e1"))
    assert worker.count("duplicates") == 1
    assert worker.count("outcomes", outcome="retracted") == 1
    assert worker.head("a", "positives") == 0
    assert len(OUTCOMES) == 10


def test_unknown_item_is_counted(make: Make) -> None:
    worker = make()
    worker.send(like("a", "no such item"))
    assert worker.count("unknown_items") == 1


def test_item_events_go_out_with_the_commit_by_partition_of_the_item(make: Make) -> None:
    worker = make()
    worker.send(*(like("a", number) for number in range(6)))
    outgoing = worker.commit()
    assert {record.topic for record in outgoing} == {"t-items"}
    for record in outgoing:
        block = decode_blocks([record.value or b""])
        assert (block["item"] % np.uint64(2)).tolist() == [record.partition] * len(block)
    everything = decode_blocks([record.value or b"" for record in outgoing])
    assert sorted(everything["source_offset"].tolist()) == list(range(6))
    assert worker.commit() == []


def test_lists_wait_for_the_commit_where_settings_say_so(make: Make) -> None:
    worker = make(transactional_recommendations=True)
    assert worker.send(like("a")) == []
    assert len(lists(worker.commit())) == 1
    without = make(transactional_recommendations=True, transactions=False)
    assert len(lists(without.send(like("a")))) == 1


def test_list_that_would_fail_the_transaction_is_dropped_and_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_side, "MAX_RECORD_BYTES", 10)
    worker = make(transactional_recommendations=True)
    worker.send(like("a"))
    assert lists(worker.commit()) == []
    assert worker.count("dropped", topic="t-recommendations") == 1
    assert worker.head("a", "events") == 1


def test_states_after_a_crash_are_those_of_the_last_commit(make: Make) -> None:
    worker = make()
    worker.send(like("a", 0))
    worker.commit()
    worker.send(like("a", 1))
    worker.restart()
    assert worker.head("a", "events") == 1
    assert worker.users.store.progress.position == 1


def test_rows_of_long_histories_keep_what_they_have_seen(make: Make) -> None:
    worker = make()
    worker.send(*(like("a", number % 40) for number in range(30)))
    assert worker.head("a", "evicted") > 0
    worker.commit()
    worker.restart()
    slot = int(worker.users.store.slots_of(["a"])[0])
    seen_slot = int(worker.rows.seen_slots[slot])
    assert worker.rows.seen.contains(seen_slot, hash_id("i0"))
    worker.send(*(like("a", number % 40) for number in range(30, 40)))
    worker.commit()
    worker.users.store.arena.evict(np.array([slot]))
    assert worker.rows.seen_slots[slot] == -1


def test_chunks_of_any_size_give_the_same_states(make: Make) -> None:
    rng = np.random.default_rng(3)
    events = [
        like(f"u{rng.integers(5)}", int(rng.integers(40)), time=NOW + n, event_id=f"e{n}")
        for n in range(60)
    ]
    large, small = make(), make()
    large.send(*events)
    for at in range(0, 60, 7):
        small.send(*events[at : at + 7])
        small.commit()
    for user in range(5):
        rows = [
            worker.rows.states.copy_rows(worker.users.store.slots_of([f"u{user}"]))
            for worker in (large, small)
        ]
        assert rows[0].sums.tobytes() == rows[1].sums.tobytes()
        assert rows[0].interest_heads.tobytes() == rows[1].interest_heads.tobytes()


def test_without_transactions_a_row_that_is_ahead_of_its_position_is_not_applied_twice(
    make: Make,
) -> None:
    worker = make(transactions=False)
    records = worker.records(like("a", 0), like("b", 1), like("a", 2))
    worker.users.process(records, 3)
    worker.commit()
    worker.users.store.progress.position = 1  # the position of an earlier commit
    assert len(lists(worker.users.process(records[1:], 3))) == 2
    assert worker.head("a", "events") == 2
    assert worker.count("replayed") == 2


def test_full_arena_is_said_before_anything_changes(make: Make) -> None:
    worker = make(capacity=2)
    worker.send(like("a"), like("b"))
    records = worker.records(like("c"))
    with pytest.raises(ArenaFullError):
        worker.users.process(records, 3)
    assert worker.users.store.progress.position == 2
    worker.commit()
    assert len(lists(worker.users.process(records, 3))) == 1


def with_encoder(worker: WorkerState, sequence: int = 1) -> Serving:
    """Return an artifact with a trained user encoder, ready to serve."""
    artifact = small_artifact(sequence)
    models = Models(tower=make_tower(fitted(), artifact.vectors))
    return make_serving(replace(artifact, models=models), worker.settings)


def written_by_a_newer_artifact(worker: WorkerState) -> Any:
    """Serve user a with artifact 7 and its encoder, then, as another worker, with artifact 1.

    Returns the encoder's state of the user: of more events than a ring holds, from which it could
    not be made anew.
    """
    older, worker.keeper.current = worker.keeper.current, with_encoder(worker, 7)
    worker.restart()
    for number in range(20):
        worker.send(like("a", number, time=NOW + number))
    hidden = worker.rows.states.hidden[worker.users.store.slots_of(["a"])[0]].copy()
    assert hidden.any()
    worker.commit()
    worker.keeper.current = older
    worker.restart()
    return hidden


def test_a_row_of_a_newer_artifact_loses_nothing_to_whoever_reads_it(make: Make) -> None:
    worker = make(emit_min_interval_seconds=1e9)
    hidden = written_by_a_newer_artifact(worker)
    worker.send(like("b"))  # whose row is at home here
    position = worker.users.store.progress.position
    records = worker.records(like("b"), like("a"))
    worker.now = NOW + 2e9  # the list that a is owed is due
    reads = (
        lambda: worker.users.process(records, worker.offset),
        worker.users.emit_due,
        lambda: worker.users.lookup.find("a"),
    )
    for read in reads:
        with pytest.raises(
            NewerArtifactError, match=r"artifact 7; at most 1.* Nothing was"
        ) as newer:
            read()
        assert newer.value.sequence == 7
        assert "a" not in worker.users.store.arena
    assert worker.users.store.progress.position == position
    assert worker.head("b", "events") == 1
    worker.keeper.current = with_encoder(worker, 7)
    user = worker.users.lookup.find("a")
    assert user is not None
    assert np.array_equal(user.rows.states.hidden[user.slot], hidden)


def test_a_row_of_an_artifact_that_latest_went_back_from_is_taken(make: Make) -> None:
    worker = make()
    written_by_a_newer_artifact(worker)
    worker.keeper.tolerated = 7
    assert len(lists(worker.send(like("a", 1)))) == 1
    assert (worker.head("a", "events"), worker.head("a", "artifact")) == (21, 1)


def test_new_artifact_is_used_from_the_next_chunk_on(make: Make) -> None:
    worker = make()
    worker.send(like("a", 0))
    worker.keeper.current = make_serving(small_artifact(2, basis="another"), worker.settings)
    (found,) = lists(worker.send(like("a", 2)))
    assert found.artifact == "v2"
    assert worker.head("a", "artifact") == 2
    assert worker.head("a", "events") == 2


def test_part_of_a_batch_keeps_all_columns(make: Make) -> None:
    worker = make()
    records = worker.records(like("a", 0), like("b", 1), like("c", 2))
    batch, _, _ = worker.users._intake.read(records, NOW)
    part = batch.take(np.array([2, 0]))
    assert part.users == ["c", "a"]
    assert part.offsets.tolist() == [2, 0]
    assert part.topic == "t-events"


def test_an_encoders_state_goes_on_after_a_restart_as_if_there_had_been_none(make: Make) -> None:
    hidden = []
    for restarts in (False, True):
        worker = make()
        worker.keeper.current = with_encoder(worker)
        worker.restart()
        for number in range(20):  # more than a ring holds: from it the state could not be made anew
            worker.send(like("a", number, time=NOW + number))
            if number % 6 == 5:
                worker.commit()
                if restarts:
                    worker.restart()
        user = worker.users.lookup.find("a")
        assert user is not None
        hidden.append(user.rows.states.hidden[user.slot].copy())
    assert np.array_equal(*hidden)
    assert hidden[0].any()


def test_a_chunk_that_was_applied_before_is_passed_over_event_by_event_too(make: Make) -> None:
    worker = make(transactions=False, emit="event")
    records = worker.records(like("a", 0), like("a", 1))
    worker.users.process(records, worker.offset)
    kept = worker.head("a", "events")
    worker.users.take_outgoing()
    made = worker.users.process(records, worker.offset)
    assert worker.head("a", "events") == kept == 2
    assert len(lists(made)) == 2
    assert worker.users.take_outgoing() == []
