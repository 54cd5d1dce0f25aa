"""Requests are checked, forwarded once, and refused as problems; nothing of them is logged."""

import asyncio
import gc
import io
import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.api_world import ApiWorld, user_in, with_api
from tests.plane_world import NOW, like
from tracker.api import sending, streams
from tracker.api.forward import HOP
from tracker.api.messages import ListAnswer, ListQuery
from tracker.api.reads import Copy, Reads
from tracker.api.server import MOST_AT_ONCE
from tracker.api.users import Users

ADA, ELSEWHERE = user_in(0), user_in(1)
TOKEN = "t" * 16


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/nothing", 404, "no such route"),
        (f"/users/{ADA}?token=x", 400, "a token in the query"),
        (f"/users/{ADA}?ACCESS_TOKEN=x", 400, "a token in the query"),
        (f"/users/{ADA}/recommendations?k=0", 400, ">= 1"),
        (f"/users/{ADA}/recommendations?k=1&k=2", 400, "k comes 2 times"),
        (f"/users/{ADA}/recommendations?at=nan", 400, "at"),
        (f"/users/{ADA}/recommendations?oops=1", 400, "unknown field"),
        (f"/users/{ADA}/history?k=1", 400, "takes no query"),
        (f"/users/{'a' * 257}", 400, "1 to 256 bytes"),
    ],
)
def test_wrong_request_is_a_problem_that_says_what_is_expected(
    tmp_path: Path, path: str, status: int, told: str
) -> None:
    async def work(world: ApiWorld) -> None:
        found, problem = await world.ask(path)
        assert (found, problem["status"]) == (status, status)
        assert told in problem["detail"]

    with_api(tmp_path, work)


def test_bodies_are_json_of_bounded_size(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        path = "/v1/recommendations"
        json_type = {"Content-Type": "application/json"}
        bodies = [
            (b"{}", {"Content-Type": "text/plain"}, 415),
            (b"{", json_type, 400),
            (b"\xff", json_type, 400),
            (b"[" * 100_000, json_type, 400),
            (b'{"events": [{"item_id": ""}]}', json_type, 400),
            (io.BytesIO(b" " * 2_000_000), json_type, 413),
        ]
        for body, headers, status in bodies:
            async with world.client.post(path, data=body, headers=headers) as answer:
                assert answer.status == status
                assert answer.content_type == "application/problem+json"
        async with world.client.put("/v1/users") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET")

    with_api(tmp_path, work)


def test_a_token_is_asked_for_and_its_scope_counts(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        assert (await world.ask("/users"))[0] == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert (await world.ask("/users", headers=headers))[0] == 200
        status, _ = await world.ask("/artifacts/rollback", "POST", headers=headers)
        assert status == 403
        assert (await world.ask("/openapi.json"))[0] == 401

    with_api(tmp_path, work, web_read_token=TOKEN)


def test_a_request_is_logged_and_counted_by_route_and_never_with_an_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(world: ApiWorld) -> None:
        with caplog.at_level(logging.DEBUG, "tracker.api.server"):
            await world.ask(f"/users/{ADA}/recommendations?scene=secret")
        assert "GET /v1/users/{user_id}/recommendations 200" in caplog.text
        told = world.worker.metrics.exposition().decode()
        assert 'route="/v1/users/{user_id}/recommendations"' in told
        for text in (caplog.text, told):
            assert ADA not in text
            assert "secret" not in text

    with_api(tmp_path, work)


def test_a_bug_is_logged_and_the_client_learns_nothing_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(world: ApiWorld) -> None:
        monkeypatch.setattr(
            "tracker.api.users.describe_user", lambda *_: (_ for _ in ()).throw(KeyError("inner"))
        )
        world.running.accept(0, world.worker.records(like(ADA, 0)))
        await world.running.applied(1)
        status, problem = await world.ask(f"/users/{ADA}")
        assert status == 500
        assert "inner" not in str(problem)
        assert "inner" in caplog.text

    with_api(tmp_path, work)


def test_a_request_for_a_user_of_another_worker_is_answered_by_that_worker_once(
    tmp_path: Path,
) -> None:
    async def work(world: ApiWorld) -> None:
        asked: list[tuple[str, str, str | None, bytes]] = []

        async def owner(request: web.Request) -> web.Response:
            body = await request.read()
            asked.append((request.method, request.raw_path, request.headers.get(HOP), body))
            return web.json_response({"from": "the owner"}, status=200)

        other = web.Application()
        other.router.add_route("*", "/{path:.*}", owner)
        status, problem = await world.ask(f"/users/{ELSEWHERE}")
        assert (status, problem["partition"]) == (421, 1)
        assert "TRACKER_WEB_ADVERTISE" in problem["detail"]
        async with TestServer(other) as server:
            world.addresses[1] = str(server.make_url("")).rstrip("/")
            assert await world.ask(f"/users/{ELSEWHERE}?at=5") == (200, {"from": "the owner"})
            body = {"user_id": ELSEWHERE, "items": ["i1"]}
            assert (await world.ask("/score", "POST", body))[0] == 200
            assert [one[:3] for one in asked] == [
                ("GET", f"/v1/users/{ELSEWHERE}?at=5", "1"),
                ("POST", "/v1/score", "1"),
            ]
            assert b'"i1"' in asked[1][3]
            status, _ = await world.ask(f"/users/{ELSEWHERE}", headers={HOP: "1"})
            assert (status, len(asked)) == (503, 2)  # it is not sent on again
        status, problem = await world.ask(f"/users/{ELSEWHERE}")
        assert status == 503
        assert "does not answer" in problem["detail"]
        world.moving = True
        assert (await world.ask(f"/users/{ELSEWHERE}"))[0] == 503

    with_api(tmp_path, work)


def test_an_id_of_two_dots_is_forwarded_as_it_came(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        asked: list[str] = []

        async def owner(request: web.Request) -> web.Response:
            asked.append(request.raw_path)
            return web.json_response({})

        other = web.Application()
        other.router.add_route("*", "/{path:.*}", owner)
        path = f"/v1/users/{ELSEWHERE}/why/%2E%2E?scene=a%2Bb"
        async with TestServer(other) as server:
            world.addresses[1] = str(server.make_url("")).rstrip("/")
            root = world.client.make_url("")
            url = type(root)(str(root).rstrip("/") + path, encoded=True)
            async with world.client.session.get(url) as answer:
                assert answer.status == 200
        assert asked == [path]

    with_api(tmp_path, work)


def test_where_no_rule_says_whose_a_user_is_the_others_are_asked(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        asked: list[tuple[str, str]] = []
        knows = {"status": 404}

        async def other_worker(request: web.Request) -> web.Response:
            asked.append((request.method, request.path))
            assert request.headers[HOP] == "1"
            if request.method == "GET" and request.path.endswith(f"/users/{ELSEWHERE}"):
                kind = "application/problem+json"
                return web.json_response({}, status=knows["status"], content_type=kind)
            return web.json_response({"from": "the owner"})

        world.running.accept(0, world.worker.records(like(ADA, 0)))
        await world.running.applied(1)
        other = web.Application()
        other.router.add_route("*", "/{path:.*}", other_worker)
        async with TestServer(other) as server:
            world.addresses[1] = str(server.make_url("")).rstrip("/")
            assert (await world.ask(f"/users/{ADA}"))[1]["events"] == 1
            assert asked == []  # who is known here is answered here
            status, found = await world.ask(f"/users/{ELSEWHERE}/recommendations")
            assert (status, found["known"], len(asked)) == (200, False, 1)
            assert (await world.ask(f"/users/{ELSEWHERE}"))[0] == 404
            knows["status"] = 200
            asked.clear()
            body = {"add": [{"item_id": "i1"}]}
            answer = await world.ask(f"/users/{ELSEWHERE}/what-if", "POST", body)
            assert answer == (200, {"from": "the owner"})
            assert asked == [
                ("GET", f"/v1/users/{ELSEWHERE}"), ("POST", f"/v1/users/{ELSEWHERE}/what-if"),
            ]  # fmt: skip
            knows["status"] = 503
            status, problem = await world.ask(f"/users/{ELSEWHERE}")
            assert (status, problem["status"]) == (503, 503)
        status, _ = await world.ask(f"/users/{ELSEWHERE}")
        assert status == 503  # it does not answer: it may be the one that knows

    with_api(tmp_path, work, partitioner="given")


def test_a_client_is_sent_to_the_owner_if_the_setting_says_so(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        world.addresses[1] = "http://other:1"
        path = f"/v1/users/{ELSEWHERE}"
        async with world.client.get(path, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (307, f"http://other:1{path}")

    with_api(tmp_path, work, web_forward="redirect")


def test_a_stream_sends_the_list_again_after_each_event_of_the_user(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        world.running.accept(0, world.worker.records(like(ADA, 0)))
        await world.running.applied(1)
        async with world.client.get(f"/v1/users/{ADA}/stream?k=2") as answer:
            assert answer.content_type == "text/event-stream"
            async with asyncio.timeout(20):
                first = (await answer.content.readuntil(b"\n\n")).decode()
                assert first.startswith("event: list\nid: 1\ndata: {")
                world.running.accept(1, world.worker.records(like(ADA, 1, time=NOW + 1)))
                second = (await answer.content.readuntil(b"\n\n")).decode()
                assert second.startswith("event: list\nid: 2\ndata: {")
                world.open.clear()
                last = (await answer.content.readuntil(b"\n\n")).decode()
                assert last.startswith("event: problem\nretry: ")

    with_api(tmp_path, work)


def test_a_stream_whose_client_has_left_ends_and_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "MOST_STREAMS", 1)
    make = Users.list_for
    asked, left = asyncio.Event(), asyncio.Event()

    async def slow_list(users: Users, user_id: str, query: ListQuery) -> ListAnswer:
        asked.set()
        await left.wait()
        return await make(users, user_id, query)

    async def work(world: ApiWorld) -> None:
        assert world.client.server.runner is not None
        server: Any = world.client.server.runner.server
        # As in a worker; a server for tests cancels what it does for a client that leaves.
        monkeypatch.setattr(server, "handler_cancellation", False)
        monkeypatch.setattr(Users, "list_for", slow_list)
        path = f"/v1/users/{ADA}/stream"
        early = asyncio.create_task(world.client.get(path))
        await asyncio.wait_for(asked.wait(), 20)
        early.cancel()  # before the first list is made
        await asyncio.sleep(0.1)
        left.set()
        for _ in range(2):
            await asyncio.sleep(5 * streams.LOOK_SECONDS)
            async with world.client.get(path) as answer:
                assert answer.status == 200
                await answer.content.readuntil(b"\n\n")
                answer.close()  # without the end of the stream

    with_api(tmp_path, work)
    assert "report it" not in caplog.text


def test_events_are_sent_to_their_partition_and_bad_ones_refused_one_by_one(
    tmp_path: Path,
) -> None:
    async def work(world: ApiWorld) -> None:
        good = {"user_id": ELSEWHERE, "item_id": "i1", "kind": "like"}
        body = {"events": [good, {"item_id": "i1"}, good | {"kind": "likee"}]}
        status, found = await world.ask("/events", "POST", body)
        assert (status, found["sent"], found["refused"]) == (202, 1, 2)
        assert found["events"][0] == {"index": 0, "partition": 1, "offset": 0}
        assert [one["reason"] for one in found["events"][1:]] == ["missing_field", "unknown_kind"]
        ((topic, partition, key, value),) = world.sent
        assert (topic, partition, key) == ("t-events", 1, ELSEWHERE.encode())
        assert b'"timestamp":1700000000' in value
        world.failure = ConnectionError("no broker")
        for events in ([good], [{"item_id": "i1"}, good]):  # the first is not what Kafka refused
            status, problem = await world.ask("/events", "POST", {"events": events})
            assert status == 503
            assert "no broker" in problem["detail"]

    with_api(tmp_path, work)


def test_events_need_to_know_the_partitioner(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        event = {"user_id": ADA, "item_id": "i1", "kind": "like"}
        status, problem = await world.ask("/events", "POST", {"events": [event]})
        assert status == 409
        assert "TRACKER_PARTITIONER is given" in problem["detail"]

    with_api(tmp_path, work, partitioner="given")


def test_events_that_wait_for_kafka_are_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sending, "SEND_SECONDS", 0.05)
    monkeypatch.setattr(sending, "MOST_WAITING_BYTES", 200)
    body = {"events": [{"user_id": ADA, "item_id": "i1", "kind": "like"}] * 4}

    async def work(world: ApiWorld) -> None:
        world.confirms = asyncio.Event()
        status, problem = await world.ask("/events", "POST", body)
        assert (status, "did not confirm within" in problem["detail"]) == (503, True)
        status, problem = await world.ask("/events", "POST", body)
        assert (status, "bytes of events wait for Kafka" in problem["detail"]) == (503, True)
        world.failure = ConnectionError("no broker")
        world.confirms.set()
        while any("._send" in repr(task.get_coro()) for task in asyncio.all_tasks()):  # they fail
            await asyncio.sleep(0.01)
        world.failure = None
        assert (await world.ask("/events", "POST", body))[0] == 202
        assert len(world.sent) == 4

    gc.collect()  # what tests before have left
    caplog.clear()
    with_api(tmp_path, work)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_few_requests_about_users_are_worked_on_at_once_and_others_are_not_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working, ended = 0, asyncio.Event()
    most = 0
    copy = Reads.copy

    async def slow_copy(reads: Reads, user_id: str, everywhere: bool = False) -> Copy:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await ended.wait()
        working -= 1
        return await copy(reads, user_id, everywhere)

    async def work(world: ApiWorld) -> None:
        monkeypatch.setattr(Reads, "copy", slow_copy)
        path = f"/users/{user_in(0)}/recommendations"
        asked = [asyncio.create_task(world.ask(path)) for _ in range(3 * MOST_AT_ONCE)]
        while working < MOST_AT_ONCE:
            await asyncio.sleep(0)
        assert (await world.ask("/items?k=1"))[0] == 200
        ended.set()
        assert [status for status, _ in await asyncio.gather(*asked)] == [200] * len(asked)
        assert most == MOST_AT_ONCE

    with_api(tmp_path, work)


def test_who_left_before_a_place_was_free_is_not_worked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()
    copied = 0
    copy = Reads.copy

    async def slow_copy(reads: Reads, user_id: str, everywhere: bool = False) -> Copy:
        nonlocal copied
        copied += 1
        await ended.wait()
        return await copy(reads, user_id, everywhere)

    async def work(world: ApiWorld) -> None:
        monkeypatch.setattr(Reads, "copy", slow_copy)
        assert world.client.server.runner is not None
        server: Any = world.client.server.runner.server
        # As in a worker; a server for tests cancels what it does for a client that leaves.
        monkeypatch.setattr(server, "handler_cancellation", False)
        path = f"/users/{user_in(0)}/recommendations"
        asked = [asyncio.create_task(world.ask(path)) for _ in range(MOST_AT_ONCE)]
        while copied < MOST_AT_ONCE:
            await asyncio.sleep(0)
        before = server.requests_count
        gone = asyncio.create_task(world.ask(path))
        while server.requests_count == before:
            await asyncio.sleep(0.01)
        gone.cancel()
        while all(one.transport for one in server.connections):  # it does not know yet
            await asyncio.sleep(0.01)
        ended.set()
        await asyncio.gather(*asked)
        assert (await world.ask(path))[0] == 200
        assert copied == MOST_AT_ONCE + 1

    with_api(tmp_path, work)
