"""Limits of the worker's web server: silent and many connections, names, log lines."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from tracker.api.turns import WAITS
from tracker.worker import web_limits
from tracker.worker.web_limits import LimitedRunner

GET = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"


async def page(request: web.Request) -> web.Response:
    return web.Response(text="a page")


async def bug(request: web.Request) -> web.Response:
    raise KeyError("inside")


IN_TURN: list[web.Request] = []
"""Requests that have come to wait for their turn."""


async def turn(request: web.Request) -> web.Response:
    request[WAITS] = True
    IN_TURN.append(request)
    while request.transport is not None:
        await asyncio.sleep(0.01)
    return web.Response()


def with_server(work: Callable[[int], Awaitable[None]]) -> None:
    """Run work with the port of a server that has a page, a bug, and turns that never come."""

    async def go() -> None:
        app = web.Application()
        app.router.add_get("/page", page)
        app.router.add_get("/bug", bug)
        app.router.add_get("/turn", turn)
        runner = LimitedRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            async with asyncio.timeout(20.0):
                await work(runner.addresses[0][1])
        finally:
            await runner.cleanup()

    asyncio.run(go())


async def send(port: int, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


async def head_of(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


def test_a_connection_whose_headers_come_slowly_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_limits, "HEADER_SECONDS", 0.3)

    async def work(port: int) -> None:
        reader, writer = await send(port, b"GET /page HTTP/1.1\r\n")
        ended = asyncio.ensure_future(reader.read())
        for number in range(100):
            if ended.done():
                break
            writer.write(f"X-{number}: 1\r\n".encode())  # some bytes all the time
            await asyncio.sleep(0.02)
        assert ended.done()
        writer.close()

    with_server(work)


def test_a_connection_that_is_idle_after_an_answer_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_limits, "IDLE_SECONDS", 0.3)

    async def work(port: int) -> None:
        reader, writer = await send(port, GET)
        assert "200" in await head_of(reader)
        writer.write(b"GET /page HT")
        assert (await reader.read()).startswith(b"a page")  # and then the end
        writer.close()

    with_server(work)


def test_a_connection_too_many_closes_the_oldest_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_limits, "MOST_CONNECTIONS", 3)

    async def work(port: int) -> None:
        first = []
        for _ in range(3):
            first.append(await send(port, GET))
            assert "200" in await head_of(first[-1][0])
        last = await send(port, GET)
        assert "200" in await head_of(last[0])
        assert await first[0][0].read() == b"a page"
        first[1][1].write(GET)
        assert b"200" in await first[1][0].readuntil(b"\r\n\r\n")
        for _, writer in [*first, last]:
            writer.close()

    with_server(work)


def test_a_connection_too_many_is_answered_while_all_others_wait_for_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_limits, "MOST_CONNECTIONS", 3)

    async def work(port: int) -> None:
        IN_TURN.clear()
        first = [await send(port, GET.replace(b"/page", b"/turn")) for _ in range(3)]
        ends = [asyncio.ensure_future(reader.read()) for reader, _ in first]
        while len(IN_TURN) < 3:
            await asyncio.sleep(0.01)
        last = await send(port, GET)
        assert "200" in await head_of(last[0])
        assert await ends[2] == b""
        assert not ends[0].done()
        assert not ends[1].done()
        for _, writer in [*first, last]:
            writer.close()
        await asyncio.gather(*ends)

    with_server(work)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [(GET, "200"), (b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
     (b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n", "500"),
     (b"GET /page HTTP/1.1\r\nA\x00: 1\r\n\r\n", "400"), (b"\x16\x03\x01\x02\r\n\r\n", "400")],
)  # fmt: skip
def test_no_answer_names_a_version_or_what_is_inside(request_bytes: bytes, status: str) -> None:
    async def work(port: int) -> None:
        reader, writer = await send(port, request_bytes)
        head = await head_of(reader)
        assert status in head.splitlines()[0]
        assert "Server: tracker\r\n" in head
        assert "aiohttp" not in head
        assert "Python" not in head
        writer.close()

    with_server(work)


def test_requests_that_are_none_are_not_logged_and_faults_once_in_ten_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def work(port: int) -> None:
        for _ in range(5):
            for data in (b"GET /page HTTP/1.1\r\nA\x00: 1\r\n\r\n", b"\x16\x03\x01\x02\r\n\r\n"):
                reader, writer = await send(port, data)
                await head_of(reader)
                writer.close()
        assert caplog.records == []
        for _ in range(5):
            reader, writer = await send(port, b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n")
            await head_of(reader)
            writer.close()

    with_server(work)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "requests to the web server failed: 1, the last with KeyError"
    )
