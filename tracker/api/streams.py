"""Server-sent events: a user's list, again after each event of the user."""

import asyncio

import msgspec
from aiohttp import web

from tracker.api.host import Host
from tracker.api.openapi import STREAM_TYPE
from tracker.api.problems import ProblemError
from tracker.api.reads import Reads
from tracker.api.server import SAFE_HEADERS, Call
from tracker.api.users import Users

LOOK_SECONDS = 0.2
"""Interval between two looks at the user's latest event."""

BEAT_SECONDS = 15.0
"""Interval of comments that keep the connection open."""

MOST_STREAMS = 64
"""Streams of a worker at once."""


class Streams:
    """Sends users' lists as they change.

    Args:
        host: the worker.
        reads: copies of users' states.
        users: makes the lists.
    """

    def __init__(self, host: Host, reads: Reads, users: Users) -> None:
        self._host = host
        self._reads = reads
        self._users = users
        self._running = 0

    async def stream(self, call: Call) -> web.StreamResponse:
        """Send a list now, and again after each event of the user, until the client goes.

        Raises:
            ProblemError: too many streams.
        """
        if self._running >= MOST_STREAMS:
            raise ProblemError(429, f"{MOST_STREAMS} streams are open")
        self._running += 1
        try:
            return await self._send(call)
        finally:
            self._running -= 1

    async def _send(self, call: Call) -> web.StreamResponse:
        user_id = call.path["user_id"]
        latest = await self._reads.last_offset(user_id)
        first = await self._list(call)
        response = web.StreamResponse(
            headers=SAFE_HEADERS | {"Content-Type": STREAM_TYPE, "X-Accel-Buffering": "no"}
        )
        loop = asyncio.get_running_loop()
        beat_at = loop.time() + BEAT_SECONDS
        try:
            await response.prepare(call.request)
            await response.write(first)
            while call.request.transport is not None:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    offset = await self._reads.last_offset(user_id)
                    changed = offset not in (latest, -1)
                    text = await self._list(call) if changed else b": alive\n\n"
                except ProblemError as problem:  # the partition moves: the client asks again
                    data = msgspec.json.encode(problem.problem)
                    await response.write(b"event: problem\nretry: 1000\ndata: " + data + b"\n\n")
                    break
                if changed:
                    latest = offset
                elif loop.time() < beat_at:
                    continue
                await response.write(text)
                beat_at = loop.time() + BEAT_SECONDS
        except ConnectionError:
            pass  # the client has gone
        return response

    async def _list(self, call: Call) -> bytes:
        answer = await self._users.list_for(call.path["user_id"], call.query)
        data = msgspec.json.encode(answer)
        return b"event: list\nid: %d\ndata: " % answer.offset + data + b"\n\n"
