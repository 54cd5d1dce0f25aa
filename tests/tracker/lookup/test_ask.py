"""Commands ask a worker over HTTP, with the token of the settings, and tell its problems."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tracker.lookup.ask import AskError, ask, path_of
from tracker.settings import load_settings


class Answers(http.server.BaseHTTPRequestHandler):
    """Gives back what it was asked; some paths are odd answers."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        said = {"path": self.path, "body": body.decode(), "token": self.headers["Authorization"]}
        answer, status = json.dumps(said).encode(), 200
        if "problem" in self.path:
            answer, status = b'{"status":404,"detail":"nothing is known"}', 404
        elif "odd" in self.path:
            answer = b"[1]"
        elif "broken" in self.path:
            answer, status = b"oops", 500
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_everything_that_is_asked_is_quoted_and_what_is_none_is_left_out(url: str) -> None:
    settings = load_settings({})
    said = ask(settings, url, path_of("users", "a/b c"), [("at", 1.5), ("scene", None)])
    assert said == {"path": "/v1/users/a%2Fb%20c?at=1.5", "body": "", "token": None}
    said = ask(settings, url, path_of("score"), body={"user_id": "u", "scene": None})
    assert json.loads(said["body"]) == {"user_id": "u"}


def test_the_token_to_write_goes_along_or_else_that_to_read(url: str) -> None:
    write, read = "w" * 16, "r" * 16
    settings = load_settings({}, web_token=write, web_read_token=read)
    assert ask(settings, url, "/v1/users")["token"] == f"Bearer {write}"
    settings = load_settings({}, web_read_token=read)
    assert ask(settings, url, "/v1/users")["token"] == f"Bearer {read}"


@pytest.mark.parametrize(
    ("path", "told", "status"),
    [("/problem", ": nothing is known", 404), ("/broken", ": status 500", 500)],
)
def test_a_problem_is_told_with_its_detail(url: str, path: str, told: str, status: int) -> None:
    with pytest.raises(AskError) as error:
        ask(load_settings({}), url, path)
    assert str(error.value) == f"the worker at {url.rstrip('/')}{told}"
    assert error.value.status == status


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (None, "TRACKER_WEB_PORT is 0"),
        ("http://127.0.0.1:1", "no worker answers at"),  # a port that nobody uses
        ("file:///etc", "http://HOST:PORT is expected"),
    ],
)
def test_an_address_without_a_worker_is_told_with_what_to_do(
    address: str | None, told: str
) -> None:
    with pytest.raises(AskError, match=told):
        ask(load_settings({}, web_port=0), address, "/v1/users")


def test_what_is_no_object_is_refused(url: str) -> None:
    with pytest.raises(AskError, match="did not answer with an object"):
        ask(load_settings({}), url, "/odd")
