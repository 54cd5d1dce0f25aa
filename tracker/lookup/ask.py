"""Questions to a worker's HTTP API, as the commands ask them."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from tracker.explained import Explained
from tracker.settings import Settings

SECONDS = 15.0
"""Time in which a worker has to answer: longer than it takes itself at most."""

MOST_BYTES = 64 * 1024 * 1024


class AskError(Explained):
    """A worker cannot be asked, or does not answer; `status` is that of its answer, if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def path_of(*parts: str) -> str:
    """Return a path of the API; each part is quoted."""
    return "/v1/" + "/".join(urllib.parse.quote(part, safe="") for part in parts)


def ask(
    settings: Settings,
    url: str | None,
    path: str,
    query: Sequence[tuple[str, object | None]] = (),
    body: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Ask a worker, and return the object that it answers with.

    Args:
        settings: where the worker is, and the token.
        url: web server of the worker, as http://HOST:PORT; by default that of the settings.
        path: of the route.
        query: names and values; those of None are left out.
        body: sent as JSON by POST; None to GET.

    Raises:
        AskError: no worker answers there, or its answer is a problem.
        SettingsError: the token cannot be read.
    """
    root = _root(settings, url)
    pairs = [(name, str(value)) for name, value in query if value is not None]
    target = f"{root}{path}" + (f"?{urllib.parse.urlencode(pairs)}" if pairs else "")
    headers = {"Accept": "application/json"}
    token = settings.token("web_token") or settings.token("web_read_token")
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps({k: v for k, v in body.items() if v is not None}).encode()
    answer = _answer(root, urllib.request.Request(target, data, headers))
    try:
        content = json.loads(answer)
    except ValueError as error:
        raise AskError(f"the worker at {root} did not answer with JSON ({error})") from error
    if not isinstance(content, dict):
        raise AskError(f"the worker at {root} did not answer with an object")
    return content


def ask_metrics(settings: Settings, url: str | None) -> str:
    """Return a worker's metrics, in Prometheus' text format.

    Raises:
        AskError: no worker answers there.
    """
    root = _root(settings, url)
    return _answer(root, urllib.request.Request(f"{root}/metrics")).decode()


def _root(settings: Settings, url: str | None) -> str:
    if url is None and not settings.web_port:
        raise AskError("TRACKER_WEB_PORT is 0: name a worker with --url http://HOST:PORT")
    root = (url or f"http://{_host(settings.web_host)}:{settings.web_port}").rstrip("/")
    if not root.startswith(("http://", "https://")):
        raise AskError(f"the address of the worker is {root}; http://HOST:PORT is expected")
    return root


def _answer(root: str, request: urllib.request.Request) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            content: bytes = answer.read(MOST_BYTES)
            return content
    except urllib.error.HTTPError as error:
        with error:
            detail = _detail(error)
        raise AskError(f"the worker at {root}: {detail}", error.code) from error
    except (OSError, ValueError) as error:
        raise AskError(
            f"no worker answers at {root} ({getattr(error, 'reason', error)}); start one, or name"
            " another with --url"
        ) from error


def _host(host: str) -> str:
    """Return the host at which a server that listens at `host` is reached from this machine."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(MOST_BYTES))["detail"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"status {error.code}"
