"""Access: who may ask, from where, with which token, and how often."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

from tracker.api.problems import ProblemError

Scope = Literal["read", "write"]

MOST_CLIENTS = 4096
"""Clients whose rates are kept; of more, the one that asked longest ago is forgotten."""

PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
"""Headers of requests that came through a proxy, whose own address says nothing."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

TOKEN_NAMES = ("token", "access_token", "authorization", "web_token", "bearer")
"""Names of parameters in which a token would stand in logs."""

NOT_LOCAL = (
    "without a token, only requests from this machine are answered: set TRACKER_WEB_TOKEN, or"
    " TRACKER_WEB_TOKEN_FILE, and send the header Authorization: Bearer TOKEN"
)


class Access:
    """Decides whether a request may be answered.

    Args:
        write_token: token of those who may read and write; None for no token.
        read_token: token of those who may only read; None for none.
        rate: requests a second that a client may send, over a few seconds.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        write_token: str | None,
        read_token: str | None,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer, self._reader = _bytes(write_token), _bytes(read_token)
        self._rate = rate
        self._clock = clock
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, when

    @property
    def has_token(self) -> bool:
        """True if requests need a token."""
        return self._writer is not None or self._reader is not None

    def check(
        self, remote: str | None, host: str, headers: Mapping[str, str], scope: Scope
    ) -> None:
        """Refuse a request that may not be answered.

        With a token, each request has to bring one of the scope. Without one, only this machine may
        ask: not through a proxy, not under another name of it, and not from a page of another site,
        which a browser on this machine may have open.

        Args:
            remote: address of the client.
            host: the Host header.
            headers: of the request.
            scope: what the route needs.

        Raises:
            ProblemError: 401 or 403, with the remedy.
        """
        if not self.has_token:
            if not is_local(remote) or any(name in headers for name in PROXY_HEADERS):
                raise ProblemError(403, NOT_LOCAL)
            if _name_of(host) not in LOCAL_NAMES and not is_local(_name_of(host)):
                raise ProblemError(403, f"the Host header is not this machine's; {NOT_LOCAL}")
            origin = headers.get("Origin")
            if origin is not None and origin.split("://", 1)[-1] != host:
                raise ProblemError(403, f"a page of another site asks; {NOT_LOCAL}")
            return
        kind, _, token = headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise ProblemError(
                401, "no token; send the header Authorization: Bearer TOKEN (TRACKER_WEB_TOKEN)"
            )
        token_bytes = token.strip().encode("utf-8", "surrogateescape")
        if _equal(self._writer, token_bytes):
            return
        if not _equal(self._reader, token_bytes):
            raise ProblemError(401, "the token is not the worker's TRACKER_WEB_TOKEN")
        if scope == "write":
            raise ProblemError(
                403, "this token may only read; send that of TRACKER_WEB_TOKEN to write"
            )

    def count(self, client: str | None) -> None:
        """Count a request of a client.

        Raises:
            ProblemError: 429; the client has asked too often.
        """
        now, name = self._clock(), client or ""
        most = max(2.0 * self._rate, 1.0)
        budget, at = self._budgets.pop(name, (most, now))
        budget = min(most, budget + (now - at) * self._rate)
        allowed = budget >= 1.0
        self._budgets[name] = (budget - 1.0 if allowed else budget, now)
        if len(self._budgets) > MOST_CLIENTS:
            self._budgets.popitem(last=False)
        if not allowed:
            raise ProblemError(
                429,
                f"more than {self._rate:g} requests a second from one client"
                " (TRACKER_WEB_RATE); ask less often",
            )


@lru_cache(1024)
def is_local(address: str | None) -> bool:
    """Return whether an address is of this machine's loopback."""
    try:
        parsed = ip_address((address or "").split("%", 1)[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _name_of(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].split("]", 1)[0]
    return host.rsplit(":", 1)[0].lower() if host.count(":") == 1 else host.lower()


def _bytes(token: str | None) -> bytes | None:
    return None if token is None else token.encode()


def _equal(expected: bytes | None, token_bytes: bytes) -> bool:
    return expected is not None and hmac.compare_digest(expected, token_bytes)
