"""The server of the API: requests checked, answered or forwarded, and errors as problems."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from tracker.api.access import TOKEN_NAMES, Access, Scope
from tracker.api.forward import HOP, Forwarder
from tracker.api.host import Host
from tracker.api.openapi import JSON_TYPE, describe_api
from tracker.api.problems import PROBLEM_TYPE, ProblemError
from tracker.api.reads import Reads
from tracker.api.routes import PREFIX, ROUTES, Route
from tracker.api.turns import WAITS, Turns
from tracker.events.wire import MAX_ID_BYTES

log = logging.getLogger(__name__)

MOST_BODY_BYTES = 1024 * 1024

BODY_SECONDS = 10.0
"""Time in which a body has to arrive."""

ANSWER_SECONDS = 10.0
"""Time in which an answer has to be made."""

MOST_AT_ONCE = 2
"""Requests about users that are worked on at once; others wait. Between two steps of the stream the
event loop works on all of them: with many, an event would wait for many answers."""

SCOPES: dict[str, Scope] = {route.name: route.scope for route in ROUTES}

SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_JSON_HEADERS = SAFE_HEADERS | {"Content-Type": JSON_TYPE}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a route: names in the path, query and body, decoded and checked."""

    path: Mapping[str, str]
    query: Any
    body: Any
    request: web.Request


Handler = Callable[[Call], Awaitable[msgspec.Struct | web.StreamResponse]]


class Server:
    """Answers the requests of the routes.

    Args:
        host: the worker.
        reads: copies of users' states.
        access: who may ask.
        handlers: what answers each route, by its name.
    """

    def __init__(
        self, host: Host, reads: Reads, access: Access, handlers: Mapping[str, Handler]
    ) -> None:
        self._host = host
        self._reads = reads
        self.access = access
        self._forwarder = Forwarder(host)
        self._turns = Turns(host.partitions)
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._description = msgspec.json.encode(describe_api(version("interest-tracker")))
        self.app = web.Application(middlewares=[self._answer], logger=log)
        for route in ROUTES:
            if route.name in handlers:
                handler = self._handler(route, handlers[route.name])
                self.app.router.add_route(route.method, route.path, handler, name=route.name)
        self.app.router.add_route("GET", "/openapi.json", self._openapi, name="openapi")
        self.app.on_cleanup.append(self._close)

    async def _close(self, app: web.Application) -> None:
        self._reads.close()
        await self._forwarder.close()

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=self._description, content_type=JSON_TYPE, headers=SAFE_HEADERS)

    @web.middleware
    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Check who asks, answer, and turn every error into a problem.

        What is logged and counted is the route, never the path: it has ids of users.
        """
        started = time.perf_counter()
        resource = request.match_info.route.resource
        route = "none" if resource is None else resource.canonical
        try:
            answer = await self._checked(request, handler)
        except ProblemError as problem:
            answer = _response_of(problem)
        except web.HTTPRedirection as redirection:
            answer = web.Response(status=redirection.status, headers=redirection.headers)
        except web.HTTPException as error:
            answer = _response_of(ProblemError(error.status, _detail_of(error)))
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
        except TimeoutError:
            answer = _response_of(ProblemError(503, "the answer took too long"))
        except Exception:  # a bug: its place is logged, and the client learns nothing of it
            log.exception("a request of %s failed; please report it", route)
            answer = _response_of(ProblemError(500, "a bug; the worker's log has its place"))
        seconds = time.perf_counter() - started
        self._host.context.metrics.answered(route, answer.status, seconds)
        log.debug("%s %s %d %.1f ms", request.method, route, answer.status, seconds * 1000.0)
        return answer

    async def _checked(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        request[WAITS] = True
        await self._turns.wait(lambda: request.transport is not None)
        request[WAITS] = False
        if request.query_string and any(name.lower() in TOKEN_NAMES for name in request.query):
            raise ProblemError(
                400, "a token in the query would stand in logs; send it as the header Authorization"
            )
        scope = SCOPES.get(request.match_info.route.name or "", "read")
        self.access.count(request.remote)
        self.access.check(request.remote, request.host, request.headers, scope)
        return await handler(request)

    def _handler(
        self, route: Route, answer: Handler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            path = {name: _id_of(name, text) for name, text in request.match_info.items()}
            query = None if route.query is None else _query_of(request, route.query)
            if route.query is None and request.query:
                raise ProblemError(400, "this route takes no query")
            raw: bytes | None = None
            body: Any = None
            if route.body is not None:
                raw = await _body_of(request)
                body = _decoded(raw, route.body)
            if route.owner is not None:
                user_id = path["user_id"] if route.owner == "path" else body.user_id
                number = self._reads.partition_of(user_id)
                if number is None:
                    address = await self._search(request, user_id)
                    if address is not None:
                        return await self._forwarder.forward(request, None, raw, address)
                elif self._is_elsewhere(number):
                    return await self._forwarder.forward(request, number, raw)
            call = Call(path, query, body, request)
            if route.streams:
                message = await answer(call)
            else:
                place = nullcontext() if route.owner is None else self._places
                async with asyncio.timeout(ANSWER_SECONDS), place:
                    if request.transport is None:
                        raise ProblemError(503, "the client left before it was answered")
                    message = await answer(call)
            if isinstance(message, web.StreamResponse):
                return message
            return web.Response(
                body=msgspec.json.encode(message), status=route.status, headers=_JSON_HEADERS
            )

        return handle

    def _is_elsewhere(self, number: int) -> bool:
        """Return whether another worker has a partition.

        Raises:
            ProblemError: the partition is on its way to this worker.
        """
        if number in self._host.partitions():
            return False
        if self._host.addresses().get(number) == self._host.address and self._host.moving():
            raise ProblemError(503, f"partition {number} is being recovered", partition=number)
        return True

    async def _search(self, request: web.Request, user_id: str) -> str | None:
        """Return the address of the worker that knows a user whose partition no rule tells.

        None if this worker knows the user, or none does.

        Raises:
            ProblemError: a worker that may know the user does not answer.
        """
        if HOP in request.headers:
            return None
        if self._host.partitions() and (await self._reads.copy(user_id)).known:
            return None
        path = f"{PREFIX}/users/{quote(user_id, safe='')}"
        return await self._forwarder.find(request, path)


def _id_of(name: str, text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= MAX_ID_BYTES:
        raise ProblemError(400, f"{name}: 1 to {MAX_ID_BYTES} bytes of UTF-8 are expected")
    return text


def _query_of(request: web.Request, kind: type[msgspec.Struct]) -> Any:
    if not request.query_string:
        return _empty_query(kind)
    values: dict[str, Any] = {}
    lists = _lists_of(kind)
    for name in request.query:
        many = request.query.getall(name)
        if len(many) > 1 and name not in lists:
            raise ProblemError(400, f"{name[:64]} comes {len(many)} times; once is expected")
        values[name] = many if name in lists else many[0]
    try:
        query = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ProblemError(400, f"the query is wrong: {error}") from error
    _check_numbers(query)
    return query


@cache
def _empty_query(kind: type[msgspec.Struct]) -> Any:
    return msgspec.convert({}, kind)


@cache
def _lists_of(kind: type[msgspec.Struct]) -> set[str]:
    """Return the names of the fields that are lists."""
    return {field.name for field in msgspec.structs.fields(kind) if field.default_factory is list}


async def _body_of(request: web.Request) -> bytes:
    if request.content_type != JSON_TYPE:
        raise ProblemError(415, f"a body of Content-Type {JSON_TYPE} is expected")
    bounded = request.clone(
        client_max_size=MOST_BODY_BYTES
    )  # the outermost application has its own
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await bounded.read()
    except TimeoutError as error:
        raise ProblemError(400, f"the body did not arrive within {BODY_SECONDS:g} s") from error


def _decoded(raw: bytes, kind: type[msgspec.Struct]) -> Any:
    try:
        body = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, f"the body is wrong: {error}") from error
    _check_numbers(body)
    return body


def _check_numbers(message: msgspec.Struct) -> None:
    """Refuse numbers that are not finite, and texts that are no UTF-8.

    Raises:
        ProblemError: 400.
    """
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ProblemError(400, f"{name} is not a finite number")
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            if isinstance(text, str):
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise ProblemError(400, f"{name} is not a text of UTF-8") from error


def _detail_of(error: web.HTTPException) -> str:
    if error.status == 404:
        return f"no such route; {PREFIX}/openapi.json names those there are"
    if error.status == 405:
        return "the route does not take this method"
    if error.status == 413:
        return f"the body has more than {MOST_BODY_BYTES} bytes"
    return error.reason


def _response_of(error: ProblemError) -> web.Response:
    headers = dict(SAFE_HEADERS)
    if error.retry_seconds is not None:
        headers["Retry-After"] = str(error.retry_seconds)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        body=msgspec.json.encode(error.problem), status=error.status, content_type=PROBLEM_TYPE,
        headers=headers,
    )  # fmt: skip
