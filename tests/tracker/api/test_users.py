"""Answers about users: from the state as it is between two chunks, and without changing it."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.api_world import ApiWorld, user_in, with_api
from tests.plane_world import NOW, like, lists
from tracker.events.wire import Event
from tracker.items.item_map import fit_map, map_places
from tracker.items.vectors import unit
from tracker.stream.partition import SMALL_RECORDS

ADA = user_in(0)


async def shop(world: ApiWorld, count: int = 12) -> None:
    """Send events of Ada, who likes items of even number."""
    events = [like(ADA, 2 * number, time=NOW + number, kind="like") for number in range(count)]
    world.running.accept(0, world.worker.records(*events))
    await world.running.applied(count)


def test_a_list_is_the_one_that_the_worker_sends_and_asking_changes_nothing(
    tmp_path: Path,
) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        before = world.worker.rows.states.head.copy()
        sent = lists(world.running.outbox.records)[-1]
        status, found = await world.ask(f"/users/{ADA}/recommendations?at={sent.timestamp}")
        assert (status, found["known"], found["offset"]) == (200, True, 12)
        assert found["time"] == sent.timestamp
        assert [one["item_id"] for one in found["items"]] == [one.item_id for one in sent.items]
        assert [one["score"] for one in found["items"]] == pytest.approx(
            [one.score for one in sent.items], abs=1e-4
        )
        assert np.array_equal(before, world.worker.rows.states.head)
        assert len(lists(world.running.outbox.records)) == 1

    with_api(tmp_path, work)


@pytest.mark.parametrize("explain", ["off", "reasons", "parts"])
def test_the_topic_says_of_a_list_what_http_says_of_it(tmp_path: Path, explain: str) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world, 16)
        sent = lists(world.running.outbox.records)[-1]
        _, answer = await world.ask(f"/users/{ADA}/recommendations?at={sent.timestamp}")
        assert len(sent.items) == len(answer["items"]) > 3
        told = 0
        for one, other in zip(sent.items, answer["items"], strict=True):
            assert one.interest == other.get("interest")
            because = other.get("because", [])
            assert one.because == [reason["item_id"] for reason in because]
            assert one.shares == pytest.approx([reason["share"] for reason in because], abs=1e-4)
            assert one.earlier == pytest.approx(other.get("earlier"), abs=1e-4)
            parts = other.get("parts")
            assert (one.parts is None) == (parts is None) == (explain != "parts")
            if one.parts is not None:
                assert one.parts.groups == pytest.approx(parts["groups"], abs=2e-6)
                assert one.parts.base == pytest.approx(parts["base"], abs=2e-6)
                assert one.parts.diversity == pytest.approx(parts["diversity"], abs=2e-6)
            told += bool(one.because)
        assert bool(told) == (explain != "off")
        assert [interest.label for interest in sent.interests] == [
            interest["label"] for interest in answer["interests"][: len(sent.interests)]
        ]

    with_api(tmp_path, work, explain=explain)


def test_a_list_has_what_was_wished_for(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        path = f"/users/{ADA}/recommendations"
        _, plain = await world.ask(f"{path}?k=3&explain=off")
        assert len(plain["items"]) == 3
        assert "because" not in plain["items"][0]
        first, second = (one["item_id"] for one in plain["items"][:2])
        _, less = await world.ask(f"{path}?k=3&exclude={first}&exclude={second}")
        assert not {first, second} & {one["item_id"] for one in less["items"]}
        assert len(less["items"]) == 3
        _, other = await world.ask(f"{path}?diversity=1&scene=home")
        assert other["scene"] == "home"

    with_api(tmp_path, work)


def test_a_reason_has_the_time_of_the_latest_event_that_was_not_taken_back(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world, 5)
        again = like(ADA, 2, time=NOW + 50.0, event_id="again")
        world.running.accept(5, world.worker.records(again))
        await world.running.applied(5, 6)
        path = f"/users/{ADA}/recommendations"

        async def times() -> set[float]:
            _, found = await world.ask(path)
            reasons = [reason for one in found["items"] for reason in one.get("because", ())]
            return {reason["time"] for reason in reasons if reason["item_id"] == "i2"}

        assert await times() == {NOW + 50.0}
        back = Event(ADA, timestamp=NOW + 60.0, retracts="again")
        world.running.accept(6, world.worker.records(back))
        await world.running.applied(5, 6, 7)
        assert await times() == {NOW + 1.0}

    with_api(tmp_path, work)


def test_the_shares_of_an_item_add_up_and_events_that_left_the_ring_are_earlier(
    tmp_path: Path,
) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world, 5)
        path = f"/users/{ADA}/recommendations?explain=parts"
        _, found = await world.ask(path)
        assert {one["earlier"] for one in found["items"] if "earlier" in one} == {0.0}
        events = [like(ADA, 2 * number, time=NOW + number) for number in range(5, 16)]
        world.running.accept(5, world.worker.records(*events))
        await world.running.applied(5, 16)
        _, found = await world.ask(path)
        told = [one for one in found["items"] if "earlier" in one]
        assert told
        for one in told:
            shares = [reason["share"] for reason in one.get("because", ())]
            assert sum(shares) + one["others"] + one["earlier"] == pytest.approx(1.0, abs=1e-5)
            assert shares == sorted(shares, reverse=True)
        assert all(one["earlier"] > 0.1 for one in told if one["label"] == "group 0")
        for one in found["items"]:
            parts = one["parts"]
            assert parts["base"] + sum(parts["groups"].values()) == pytest.approx(
                one["score"], abs=1e-4
            )

    with_api(tmp_path, work)


def test_interests_history_and_outlook_are_of_the_same_state(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world, 3)
        status, user = await world.ask(f"/users/{ADA}")
        assert (status, user["events"], user["partition"]) == (200, 3, 0)
        _, interests = await world.ask(f"/users/{ADA}/interests?at={NOW + 2}")
        assert interests["interests"][0]["events"] >= 1
        _, history = await world.ask(f"/users/{ADA}/history")
        assert [one["item_id"] for one in history["history"]] == ["i4", "i2", "i0"]
        assert {one["kind"] for one in history["history"]} == {"like"}
        assert [one["place"] for one in history["history"]] == [0, 1, 2]
        status, outlook = await world.ask(f"/users/{ADA}/outlook")
        assert (status, outlook["outlook"]) == (200, [])
        assert "has no user encoder" in outlook["note"]

    with_api(tmp_path, work)


def test_somebody_unknown_gets_a_list_and_no_history(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        nobody = user_in(0, skip=1)
        status, found = await world.ask(f"/users/{nobody}/recommendations?k=4")
        assert (status, found["known"], len(found["items"])) == (200, False, 4)
        for what in ("", "/history", "/interests", "/outlook"):
            status, problem = await world.ask(f"/users/{nobody}{what}")
            assert (status, problem["partition"]) == (404, 0)

    with_api(tmp_path, work)


def test_a_user_who_is_only_in_the_database_is_read_and_not_loaded(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        await world.running.until(lambda: world.running.partition.store.committed == 12)
        _, before = await world.ask(f"/users/{ADA}/recommendations?at={NOW + 20}")
        store = world.running.partition.store
        await world.running.until(lambda: not store.arena.pinned.any())
        store.arena.evict(np.array([store.arena.slot(ADA)]))
        _, after = await world.ask(f"/users/{ADA}/recommendations?at={NOW + 20}")
        assert after == before
        assert ADA not in store.arena

    with_api(tmp_path, work)


def test_a_guest_gets_the_list_of_a_user_with_the_same_events(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world, 3)
        _, user = await world.ask(f"/users/{ADA}/recommendations?at={NOW + 5}&k=5")
        events = [
            {"item_id": f"i{2 * number}", "kind": "like", "timestamp": NOW + number}
            for number in range(3)
        ]
        body = {"events": events, "at": NOW + 5, "k": 5}
        status, guest = await world.ask("/recommendations", "POST", body)
        assert (status, guest["user_id"]) == (200, None)
        assert guest["items"] == user["items"]
        status, empty = await world.ask("/recommendations", "POST", {})
        assert (status, len(empty["items"])) == (200, 10)
        body = {"events": [{"item_id": "i1", "kind": "vieww"}]}
        status, problem = await world.ask("/recommendations", "POST", body)
        assert status == 400
        assert "did you mean view" in problem["detail"]

    with_api(tmp_path, work)


def test_users_of_the_latest_events_come_first(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        bob = user_in(0, skip=1)
        world.running.accept(0, world.worker.records(like(ADA, 1), like(bob, 1, time=NOW + 1)))
        await world.running.applied(2)
        status, found = await world.ask("/users?k=5")
        assert status == 200
        assert [one["user_id"] for one in found["users"]] == [bob, ADA]

    with_api(tmp_path, work)


def test_requests_that_the_partition_cannot_answer_now_say_when_to_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    async def work(world: ApiWorld) -> None:
        await shop(world)
        users, events = world.worker.users, [like(ADA, 0)] * (SMALL_RECORDS + 1)
        process = users.process

        def slow(*chunk: Any) -> Any:
            begun.set()
            assert go_on.wait(60.0)
            return process(*chunk)

        monkeypatch.setattr(users, "process", slow)
        world.running.accept(12, world.worker.records(*events))
        await world.running.until(begun.is_set)  # a chunk is under way in its thread
        monkeypatch.setattr("tracker.stream.partition.MOST_QUERIES", 0)
        status, problem = await world.ask(f"/users/{ADA}")
        assert status == 429
        assert "questions wait" in problem["detail"]
        go_on.set()
        world.open.clear()
        world.moving = True
        status, problem = await world.ask(f"/users/{ADA}")
        assert (status, problem["partition"]) == (503, 0)

    try:
        with_api(tmp_path, work)
    finally:
        go_on.set()


def test_scores_are_those_of_the_lookup(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        body = {"user_id": ADA, "items": ["i1", "none"], "scene": "home", "at": 5.0}
        status, found = await world.ask("/score", "POST", body)
        assert (status, found["known"], found["time"], found["trained"]) == (200, True, 5.0, False)
        assert [one["in_catalogue"] for one in found["items"]] == [True, False]

    with_api(tmp_path, work)


def test_the_trend_of_an_item_is_that_of_its_events(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        view = world.worker.keeper.current.view
        status, answer = await world.ask("/items/i3/trend")
        assert (status, answer["steps"]) == (200, [])
        half_lives = view.columns.half_lives
        view.columns.counts[3] = 8.0 * np.exp2(-4000.0 / half_lives)
        view.columns.ref_times[3] = NOW
        _, answer = await world.ask(f"/items/i3/trend?at={NOW}")
        steps = answer["steps"]
        assert [step["from_seconds"] < step["to_seconds"] for step in steps] == [True] * len(steps)
        assert steps == sorted(steps, key=lambda step: -step["middle_seconds"])
        best = max(steps, key=lambda step: step["events_per_hour"])
        assert best["from_seconds"] < 4000.0 < best["to_seconds"]
        assert (await world.ask("/items/nothing/trend"))[0] == 404

    with_api(tmp_path, work)


@pytest.mark.parametrize("is_kept", [True, False])
def test_items_and_interests_have_places_on_the_map(tmp_path: Path, is_kept: bool) -> None:
    """An artifact keeps its map; one that keeps none has its items on one that is made here."""

    async def work(world: ApiWorld) -> None:
        await shop(world)
        artifact = world.worker.keeper.current.artifact
        if is_kept:
            vectors = replace(artifact.vectors, map_projection=fit_map(artifact.vectors.vectors))
            object.__setattr__(artifact, "vectors", vectors)
        status, answer = await world.ask("/map?k=10")
        assert (status, len(answer["items"])) == (200, 10)
        expected = map_places(fit_map(artifact.vectors.vectors), artifact.vectors.vectors)
        for item in answer["items"]:
            row = artifact.vectors.row_of_id(item["item_id"])
            assert [item["x"], item["y"]] == pytest.approx(expected[row].tolist(), abs=1e-4)
        _, answer = await world.ask(f"/users/{ADA}/interests")
        places = [[one["x"], one["y"]] for one in answer["interests"]]
        states = world.worker.rows.states
        count = int(states.head["n_slots"].max())
        assert len(places) == count
        if not is_kept:
            assert places == [[None, None]] * count
            return
        (user,) = np.flatnonzero(states.head["n_slots"] == count)
        means = unit(states.interest_means[user, :count].astype(np.float32))
        expected = map_places(fit_map(artifact.vectors.vectors), means)
        np.testing.assert_allclose(sorted(places), sorted(expected.tolist()), atol=1e-3)

    with_api(tmp_path, work)
