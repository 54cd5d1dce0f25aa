"""Limits of the web server: open connections, slow and idle ones, and its own log lines."""

import asyncio
import logging
import time
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from tracker.api.turns import WAITS

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 256
"""Open connections. One more closes the oldest that waits for a request, or else the newest whose
request waits for its turn, so that /healthz is answered; without either it is refused."""

HEADER_SECONDS = 10.0
"""Time in which the first request of a connection has to arrive."""

IDLE_SECONDS = 75.0
"""Time after an answer in which the next request has to arrive; proxies wait 60 s, as a rule."""

LINGER_SECONDS = 5.0
"""Time in which the rest of a body that nobody reads has to arrive."""

FAULT_SECONDS = 10.0
"""A request that fails in the server itself is logged once in that time, with their number."""

SERVER_NAME = "tracker"
"""Value of the header Server: no version of anything."""


class LimitedServer(web.Server):
    """Connections of a web server, and how often one failed since that was last logged.

    Args:
        server: the server of an application, before it has connections.
        settings: arguments of its request handlers.
    """

    def __init__(self, server: web.Server, **settings: Any) -> None:
        super().__init__(
            server.request_handler, request_factory=cast(Any, server.request_factory), **settings
        )
        self._settings = settings
        self._failed = 0
        self._logged_at = -FAULT_SECONDS

    def __call__(self) -> RequestHandler:
        """Return the handler of a new connection."""
        return LimitedHandler(self, loop=asyncio.get_running_loop(), **self._settings)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Count a new connection, and close another one where there are too many."""
        if len(self._connections) >= MOST_CONNECTIONS:
            other = next(filter(_waits, self._connections), None)
            other = other or next(filter(_waits_for_turn, reversed(self._connections)), None)
            if other is None:
                handler.force_close()
                return
            other.force_close()
            del self._connections[other]
        super().connection_made(handler, transport)

    def fault(self, error: BaseException | None) -> None:
        """Log that a request failed in the server itself, seldom."""
        self._failed += 1
        if time.monotonic() - self._logged_at >= FAULT_SECONDS:
            log.error(
                "requests to the web server failed: %d, the last with %s; please report it",
                self._failed, "no error" if error is None else f"{type(error).__name__}: {error}",
                exc_info=error,
            )  # fmt: skip
            self._failed, self._logged_at = 0, time.monotonic()


class LimitedHandler(RequestHandler):
    """One connection: closed if it is silent, and without lines and names of the library."""

    __slots__ = ("_silence",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._silence = self._loop.call_later(HEADER_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait no longer."""
        self._silence.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request, or what failed, without a word of what is inside."""
        text = message if status < 500 and message else "the request failed"
        answer = super().handle_error(request, status, exc, text)
        answer.headers["Server"] = SERVER_NAME
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Pass over what clients did wrong, and log what is a fault of ours, seldom."""
        error = kw.get("exc_info")
        if isinstance(error, web.HTTPException | HttpProcessingError):
            log.debug("a request that is none: %s", error)
        elif isinstance(self._manager, LimitedServer):
            self._manager.fault(error)


class LimitedRunner(web.AppRunner):
    """Runs an application with these limits."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(app, access_log=None)
        app.on_response_prepare.append(_name)

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return LimitedServer(
            server,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
        )


async def _name(request: web.Request, answer: web.StreamResponse) -> None:
    answer.headers["Server"] = SERVER_NAME


def _waits(handler: RequestHandler) -> bool:
    """Return whether a connection waits for a request."""
    waiter = handler._waiter
    return waiter is not None and not waiter.done()


def _waits_for_turn(handler: RequestHandler) -> bool:
    """Return whether the request of a connection waits for its turn."""
    request: Any = handler._current_request
    return request is not None and bool(request.get(WAITS))
