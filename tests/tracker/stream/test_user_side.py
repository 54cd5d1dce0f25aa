"""UserSide: events into states, lists by policy, item events with the commit."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.items.tower_items import make_tower
from tests.plane_world import NOW, Bench, like, lists, small_artifact
from tests.tracker.encoder.test_tower import fitted
from tracker.artifact.models import Models
from tracker.events.item_events import decode_blocks
from tracker.events.wire import Event, hash_id
from tracker.store.arena import ArenaFullError
from tracker.stream import user_side
from tracker.stream.serving import Serving, make_serving
from tracker.stream.user_side import OUTCOMES
from tracker.users.states import NewerArtifactError

Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def build(**arguments: Any) -> Bench:
        made.append(Bench(tmp_path / str(len(made)), **arguments))
        return made[-1]

    yield build
    for bench in made:
        bench.close()


def test_chunk_gives_each_user_one_list_that_names_the_last_event(make: Make) -> None:
    bench = make()
    found = lists(bench.send(like("a", 0), like("b", 1), like("a", 2, scene="home")))
    assert [(one.user_id, one.id) for one in found] == [
        ("b", "t-events-0-1"),
        ("a", "t-events-0-2"),
    ]
    (b, a) = found
    assert (a.scene, b.scene) == ("home", None)
    assert a.artifact == "v1"
    assert len(a.items) == 10
    assert a.timestamp == NOW
    assert bench.users.store.progress.position == 3
    assert bench.head("a", "events") == 2
    assert bench.count("events") == 3
    assert bench.count("outcomes", outcome="applied") == 3


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
    bench = make(emit="changed")
    assert len(lists(bench.send(like("a", 0)))) == 1
    repeat = Event("a", None, None, NOW, retracts="never seen")
    assert lists(bench.send(repeat)) == []
    assert len(lists(bench.send(like("a", 1)))) == 1


def test_interval_holds_lists_back_and_the_last_one_follows(make: Make) -> None:
    bench = make(emit_min_interval_seconds=10.0)
    assert len(lists(bench.send(like("a", 0)))) == 1
    bench.now += 3.0
    assert lists(bench.send(like("a", 2, scene="cart"), like("a", 4, scene="home"))) == []
    assert bench.users.pending() == 1
    assert bench.users.emit_due() == []
    assert bench.users.due_at(True) == NOW + 10.0
    bench.now = NOW + 10.0
    (trailing,) = lists(bench.users.emit_due())
    assert (trailing.id, trailing.scene) == ("t-events-0-2", "home")
    assert bench.users.pending() == 0
    assert trailing.latency_ms == pytest.approx(10_000.0)


def test_owed_list_survives_a_crash(make: Make) -> None:
    bench = make(emit_min_interval_seconds=10.0)
    bench.send(like("a", 0))
    bench.send(like("a", 2))
    bench.commit()
    bench.restart()
    assert bench.users.due_at(True) == NOW
    (trailing,) = lists(bench.users.emit_due())
    assert trailing.id == "t-events-0-1"
    bench.commit()
    bench.restart()
    assert bench.users.pending() == 0


def test_backlog_gives_each_user_one_list_at_its_end(make: Make) -> None:
    bench = make(max_event_age_seconds=60.0)
    old = NOW - 1000.0
    assert lists(bench.send(like("a", 0, time=old), like("b", 1, time=old))) == []
    assert lists(bench.send(like("a", 2, time=old))) == []
    assert bench.users.due_at(False) is None
    assert bench.users.due_at(True) == NOW
    found = lists(bench.users.emit_due())
    assert sorted((one.user_id, one.id) for one in found) == [
        ("a", "t-events-0-2"),
        ("b", "t-events-0-1"),
    ]
    assert bench.head("a", "events") == 2


def test_fresh_event_ends_the_backlog(make: Make) -> None:
    bench = make(max_event_age_seconds=60.0)
    found = lists(bench.send(like("a", 0, time=NOW - 1000.0), like("b", 1)))
    assert [one.user_id for one in found] == ["b"]
    assert bench.users.due_at(False) == NOW


def test_stream_time_never_goes_back_and_is_kept_with_the_position(make: Make) -> None:
    bench = make()
    (first,) = lists(bench.send(like("a", 0, time=NOW + 50.0)))
    (late,) = lists(bench.send(like("b", 1, time=NOW - 500.0)))
    assert first.timestamp == late.timestamp == NOW + 50.0
    bench.commit()
    bench.restart()
    (again,) = lists(bench.send(like("b", 1, time=NOW)))
    assert again.timestamp == NOW + 50.0


def test_bad_records_are_rejected_with_their_bytes_and_the_rest_goes_on(make: Make) -> None:
    bench = make()
    out = bench.send(b"{", like("a", 0), None, like("b", kind="teleport"))
    rejected = [record for record in out if record.topic == "t-rejected"]
    assert [dict(record.headers)["offset"] for record in rejected] == [b"0", b"2", b"3"]
    assert rejected[0].value == b"{"
    assert len(lists(out)) == 1
    assert bench.users.store.progress.position == 4
    assert bench.count("rejected", reason="unknown_kind") == 1
    assert bench.head("a", "last_offset") == 1


def test_chunk_of_bad_records_only_moves_the_position(make: Make) -> None:
    bench = make()
    bench.send(b"{", b"[]")
    assert bench.users.store.progress.position == 2
    assert bench.users.store.needs_commit


def test_key_that_is_not_its_user_is_counted_and_taken(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    records = bench.records(b"{", like("a"), like("b"))
    records[2].key = b"somebody"
    assert len(lists(bench.users.process(records, 3))) == 2
    assert bench.count("key_mismatch") == 1
    assert "the first at offset 2" in caplog.text


def test_duplicates_and_retractions_are_counted_by_outcome(make: Make) -> None:
    bench = make()
    bench.send(like("a", 0, event_id="e1"), like("a", 0, event_id="e1"))
    bench.send(Event("a", None, None, NOW, retracts="e1"))
    assert bench.count("duplicates") == 1
    assert bench.count("outcomes", outcome="retracted") == 1
    assert bench.head("a", "positives") == 0
    assert len(OUTCOMES) == 7


def test_unknown_item_is_counted(make: Make) -> None:
    bench = make()
    bench.send(like("a", "no such item"))
    assert bench.count("unknown_items") == 1


def test_item_events_go_out_with_the_commit_by_partition_of_the_item(make: Make) -> None:
    bench = make()
    bench.send(*(like("a", number) for number in range(6)))
    outgoing = bench.commit()
    assert {record.topic for record in outgoing} == {"t-items"}
    for record in outgoing:
        block = decode_blocks([record.value or b""])
        assert (block["item"] % np.uint64(2)).tolist() == [record.partition] * len(block)
    everything = decode_blocks([record.value or b"" for record in outgoing])
    assert sorted(everything["source_offset"].tolist()) == list(range(6))
    assert bench.commit() == []


def test_lists_wait_for_the_commit_where_settings_say_so(make: Make) -> None:
    bench = make(transactional_recommendations=True)
    assert bench.send(like("a")) == []
    assert len(lists(bench.commit())) == 1
    without = make(transactional_recommendations=True, transactions=False)
    assert len(lists(without.send(like("a")))) == 1


def test_list_that_would_fail_the_transaction_is_dropped_and_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_side, "MAX_RECORD_BYTES", 10)
    bench = make(transactional_recommendations=True)
    bench.send(like("a"))
    assert lists(bench.commit()) == []
    assert bench.count("dropped", topic="t-recommendations") == 1
    assert bench.head("a", "events") == 1


def test_states_after_a_crash_are_those_of_the_last_commit(make: Make) -> None:
    bench = make()
    bench.send(like("a", 0))
    bench.commit()
    bench.send(like("a", 1))
    bench.restart()
    assert bench.head("a", "events") == 1
    assert bench.users.store.progress.position == 1


def test_rows_of_long_histories_keep_what_they_have_seen(make: Make) -> None:
    bench = make()
    bench.send(*(like("a", number % 40) for number in range(30)))
    assert bench.head("a", "evicted") > 0
    bench.commit()
    bench.restart()
    slot = int(bench.users.store.slots_of(["a"])[0])
    seen_slot = int(bench.rows.seen_slots[slot])
    assert bench.rows.seen.contains(seen_slot, hash_id("i0"))
    bench.send(*(like("a", number % 40) for number in range(30, 40)))
    bench.commit()
    bench.users.store.arena.evict(np.array([slot]))
    assert bench.rows.seen_slots[slot] == -1


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
            bench.rows.states.copy_rows(bench.users.store.slots_of([f"u{user}"]))
            for bench in (large, small)
        ]
        assert rows[0].sums.tobytes() == rows[1].sums.tobytes()
        assert rows[0].interest_heads.tobytes() == rows[1].interest_heads.tobytes()


def test_without_transactions_a_row_that_is_ahead_of_its_position_is_not_applied_twice(
    make: Make,
) -> None:
    bench = make(transactions=False)
    records = bench.records(like("a", 0), like("b", 1), like("a", 2))
    bench.users.process(records, 3)
    bench.commit()
    bench.users.store.progress.position = 1  # the position of an earlier commit
    assert len(lists(bench.users.process(records[1:], 3))) == 2
    assert bench.head("a", "events") == 2
    assert bench.count("replayed") == 2


def test_full_arena_is_said_before_anything_changes(make: Make) -> None:
    bench = make(capacity=2)
    bench.send(like("a"), like("b"))
    records = bench.records(like("c"))
    with pytest.raises(ArenaFullError):
        bench.users.process(records, 3)
    assert bench.users.store.progress.position == 2
    bench.commit()
    assert len(lists(bench.users.process(records, 3))) == 1


def with_encoder(bench: Bench, sequence: int = 1) -> Serving:
    """Return an artifact with a trained user encoder, ready to serve."""
    artifact = small_artifact(sequence)
    models = Models(tower=make_tower(fitted(), artifact.vectors))
    return make_serving(replace(artifact, models=models), bench.settings)


def written_by_a_newer_artifact(bench: Bench) -> Any:
    """Serve user a with artifact 7 and its encoder, then, as another worker, with artifact 1.

    Returns the encoder's state of the user: of more events than a ring holds, from which it could
    not be made anew.
    """
    older, bench.keeper.current = bench.keeper.current, with_encoder(bench, 7)
    bench.restart()
    for number in range(20):
        bench.send(like("a", number, time=NOW + number))
    hidden = bench.rows.states.hidden[bench.users.store.slots_of(["a"])[0]].copy()
    assert hidden.any()
    bench.commit()
    bench.keeper.current = older
    bench.restart()
    return hidden


def test_a_row_of_a_newer_artifact_loses_nothing_to_whoever_reads_it(make: Make) -> None:
    bench = make(emit_min_interval_seconds=1e9)
    hidden = written_by_a_newer_artifact(bench)
    bench.send(like("b"))  # whose row is at home here
    position = bench.users.store.progress.position
    records = bench.records(like("b"), like("a"))
    bench.now = NOW + 2e9  # the list that a is owed is due
    reads = (
        lambda: bench.users.process(records, bench.offset),
        bench.users.emit_due,
        lambda: bench.users.find_user("a"),
    )
    for read in reads:
        with pytest.raises(
            NewerArtifactError, match=r"artifact 7; at most 1.* Nothing was"
        ) as newer:
            read()
        assert newer.value.sequence == 7
        assert "a" not in bench.users.store.arena
    assert bench.users.store.progress.position == position
    assert bench.head("b", "events") == 1
    bench.keeper.current = with_encoder(bench, 7)
    user = bench.users.find_user("a")
    assert user is not None
    assert np.array_equal(user.rows.states.hidden[user.slot], hidden)


def test_a_row_of_an_artifact_that_latest_went_back_from_is_taken(make: Make) -> None:
    bench = make()
    written_by_a_newer_artifact(bench)
    bench.keeper.tolerated = 7
    assert len(lists(bench.send(like("a", 1)))) == 1
    assert (bench.head("a", "events"), bench.head("a", "artifact")) == (21, 1)


def test_new_artifact_is_used_from_the_next_chunk_on(make: Make) -> None:
    bench = make()
    bench.send(like("a", 0))
    bench.keeper.current = make_serving(small_artifact(2, basis="another"), bench.settings)
    (found,) = lists(bench.send(like("a", 2)))
    assert found.artifact == "v2"
    assert bench.head("a", "artifact") == 2
    assert bench.head("a", "events") == 2


def test_user_is_found_in_memory_and_in_the_database(make: Make) -> None:
    bench = make()
    bench.send(like("a"))
    assert bench.users.find_user("nobody") is None
    assert bench.users.find_user("a") is not None
    bench.commit()
    bench.restart()
    user = bench.users.find_user("a")
    assert user is not None
    assert user.rows.states.head["events"][user.slot] == 1
    assert user.now == NOW
    assert bench.users.new_user().slot == -1


def test_part_of_a_batch_keeps_all_columns(make: Make) -> None:
    bench = make()
    records = bench.records(like("a", 0), like("b", 1), like("c", 2))
    batch, _ = bench.users._intake.read(records)
    part = batch.take(np.array([2, 0]))
    assert part.users == ["c", "a"]
    assert part.offsets.tolist() == [2, 0]
    assert part.topic == "t-events"


def test_an_encoders_state_goes_on_after_a_restart_as_if_there_had_been_none(make: Make) -> None:
    hidden = []
    for restarts in (False, True):
        bench = make()
        bench.keeper.current = with_encoder(bench)
        bench.restart()
        for number in range(20):  # more than a ring holds: from it the state could not be made anew
            bench.send(like("a", number, time=NOW + number))
            if number % 6 == 5:
                bench.commit()
                if restarts:
                    bench.restart()
        user = bench.users.find_user("a")
        assert user is not None
        hidden.append(user.rows.states.hidden[user.slot].copy())
    assert np.array_equal(*hidden)
    assert hidden[0].any()


def test_a_chunk_that_was_applied_before_is_passed_over_event_by_event_too(make: Make) -> None:
    bench = make(transactions=False, emit="event")
    records = bench.records(like("a", 0), like("a", 1))
    bench.users.process(records, bench.offset)
    kept = bench.head("a", "events")
    bench.users.take_outgoing()
    made = bench.users.process(records, bench.offset)
    assert bench.head("a", "events") == kept == 2
    assert len(lists(made)) == 2
    assert bench.users.take_outgoing() == []
