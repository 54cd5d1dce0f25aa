"""Forwarding: a request for a user of another worker, answered by that worker."""

import asyncio
from collections.abc import Mapping

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

from tracker.api.host import Host
from tracker.api.openapi import STREAM_TYPE
from tracker.api.problems import PROBLEM_TYPE, ProblemError

HOP = "Tracker-Hop"
"""Header of a forwarded request; such a one is not forwarded again."""

CONNECTIONS = 32
"""Requests that are forwarded at once."""

SECONDS = 10.0
"""Maximum time of a forwarded request."""

FIND_SECONDS = 3.0
"""Maximum time in which a worker says whether it knows a user."""

MOST_BYTES = 16 * 1024 * 1024
"""Maximum size of a forwarded answer."""

PASSED_ON = ("Authorization", "Content-Type", "Accept", "Accept-Language", "Last-Event-ID")
"""Headers of a request that go on with it: the scope is that of whoever asked."""

PASSED_BACK = ("Content-Type", "Retry-After", "Allow", "WWW-Authenticate", "Cache-Control")

REMEDY = (
    "every worker has to tell an address of its own at which the others reach it: set"
    " TRACKER_WEB_ADVERTISE"
)


class Forwarder:
    """Sends requests on to the workers that own their users.

    The addresses come with the group's assignment, which the brokers protect. A table that is
    stale, or a worker that does not answer, gives 503 with Retry-After: never 404.

    Args:
        host: the worker.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._session: ClientSession | None = None
        self._running = 0

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def find(self, request: web.Request, path: str) -> str | None:
        """Ask the other workers for a path, and return the address of one that knows it.

        It is for the partitioner `given`, where no rule says whose a user is. One question goes to
        each worker; the request itself then goes to one alone.

        Raises:
            ProblemError: 503, a worker does not answer: it may be the one that knows the user.
        """
        others = sorted(set(self._host.addresses().values()) - {self._host.address})
        if HOP in request.headers or not others:
            return None
        statuses = await asyncio.gather(*(self._status(request, one, path) for one in others))
        for address, status in zip(others, statuses, strict=True):
            if status == 200:
                return address
        for status in statuses:
            if status != 404:
                raise ProblemError(503, "a worker that may have the user does not answer")
        return None

    async def _status(self, request: web.Request, address: str, path: str) -> int:
        """Return the status of a worker's answer; 0 if there is none."""
        try:
            async with (
                asyncio.timeout(FIND_SECONDS),
                self._sessions().get(
                    address + path, headers=_passed_on(request), allow_redirects=False
                ) as answer,
            ):
                is_ours = answer.status != 404 or answer.content_type == PROBLEM_TYPE
                return answer.status if is_ours else 0
        except (ClientError, TimeoutError, OSError):
            return 0

    async def forward(
        self,
        request: web.Request,
        partition: int | None,
        body: bytes | None,
        address: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request with what the owner of a partition answers.

        Args:
            request: to forward.
            partition: of the user; None if only the address of the worker is known.
            body: of the request.
            address: of the worker, if it is known.

        Raises:
            ProblemError: the owner is not known, or does not answer.
        """
        if HOP in request.headers:
            raise ProblemError(
                503,
                f"partition {partition} is moving: it is not this worker's",
                partition=partition,
            )
        target = (address or self._target(partition)) + request.raw_path
        if self._host.context.settings.web_forward == "redirect":
            raise _redirect(request, target)
        if self._running >= CONNECTIONS:
            raise ProblemError(429, f"{CONNECTIONS} requests are being forwarded")
        self._running += 1
        try:
            return await self._fetch(request, target, body, partition)
        except (ClientError, TimeoutError, OSError) as error:
            raise ProblemError(
                503,
                f"{_whose(partition)} does not answer ({type(error).__name__}); {REMEDY}",
                partition=partition,
            ) from error
        finally:
            self._running -= 1

    def _sessions(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=CONNECTIONS),
                timeout=ClientTimeout(total=None, sock_connect=2.0, sock_read=30.0),
                auto_decompress=False,
            )
        return self._session

    def _target(self, partition: int | None) -> str:
        """Return the address of the owner."""
        if self._host.moving():
            raise ProblemError(503, "partitions are being handed out", partition=partition)
        address = None if partition is None else self._host.addresses().get(partition)
        if address is None or address == self._host.address:
            raise ProblemError(
                421, f"partition {partition} is another worker's; {REMEDY}", partition=partition
            )
        return address

    async def _fetch(
        self, request: web.Request, target: str, body: bytes | None, partition: int | None
    ) -> web.StreamResponse:
        # As it came: an id may be "..", written as %2E%2E, which is a way up once it is decoded.
        address = type(request.url)(target, encoded=True)
        async with self._sessions().request(
            request.method, address, headers=_passed_on(request), data=body,
            allow_redirects=False,
        ) as answer:  # fmt: skip
            back = _passed_back(answer.headers)
            if answer.content_type == STREAM_TYPE:
                stream = web.StreamResponse(status=answer.status, headers=back)
                await stream.prepare(request)
                async for chunk in answer.content.iter_any():
                    await stream.write(chunk)
                return stream
            async with asyncio.timeout(SECONDS):
                content = await answer.content.read(MOST_BYTES + 1)
                while not answer.content.at_eof() and len(content) <= MOST_BYTES:
                    content += await answer.content.read(MOST_BYTES + 1 - len(content))
            if len(content) > MOST_BYTES:
                raise ProblemError(503, "the answer of the other worker is too large")
            if answer.status == 404 and not answer.content_type.startswith("application/problem"):
                raise ProblemError(  # a worker of another version, or something else
                    503, f"{_whose(partition)} has no such route"
                )
            return web.Response(body=content, status=answer.status, headers=back)


def _whose(partition: int | None) -> str:
    if partition is None:
        return "the worker that has the user"
    return f"the worker that has partition {partition}"


def _passed_on(request: web.Request) -> dict[str, str]:
    headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    headers[HOP] = "1"
    return headers


def _passed_back(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in PASSED_BACK if name in headers}


def _redirect(request: web.Request, target: str) -> web.HTTPException:
    return web.HTTPTemporaryRedirect(type(request.url)(target, encoded=True))
