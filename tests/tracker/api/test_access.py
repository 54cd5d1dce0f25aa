"""Who may ask: this machine, or who has a token of the scope, and not too often."""

from collections.abc import Mapping

import pytest

from tracker.api.access import MOST_CLIENTS, PROXY_HEADERS, Access, Scope, is_local
from tracker.api.problems import ProblemError

WRITE, READ = "w" * 16, "r" * 16


def status(
    access: Access,
    remote: str | None = "127.0.0.1",
    host: str = "127.0.0.1:6066",
    headers: Mapping[str, str] | None = None,
    scope: Scope = "read",
) -> int:
    try:
        access.check(remote, host, headers or {}, scope)
    except ProblemError as problem:
        return problem.status
    return 200


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_answered_without_a_token(address: str) -> None:
    assert is_local(address)
    assert status(Access(None, None, 10.0), address, scope="write") == 200


@pytest.mark.parametrize("address", ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "", None, "x"])
def test_other_machines_are_not_answered_without_a_token(address: str | None) -> None:
    assert status(Access(None, None, 10.0), address) == 403


@pytest.mark.parametrize("header", PROXY_HEADERS)
def test_a_proxy_on_this_machine_does_not_open_the_api_to_others(header: str) -> None:
    assert status(Access(None, None, 10.0), headers={header: "10.0.0.1"}) == 403
    assert status(Access(WRITE, None, 10.0), headers={header: "x"} | bearer(WRITE)) == 200


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:6066", "127.0.0.2"]
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert status(Access(None, None, 10.0), host=host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:6066", "localhost.evil.example", ""]
)
def test_a_name_that_was_bound_to_this_machine_is_not_answered(host: str) -> None:
    assert status(Access(None, None, 10.0), host=host) == 403


def test_a_page_of_another_site_is_not_answered_and_the_own_page_is() -> None:
    access = Access(None, None, 10.0)
    assert status(access, headers={"Origin": "https://evil.example"}) == 403
    assert status(access, headers={"Origin": "null"}) == 403
    assert status(access, headers={"Origin": "http://127.0.0.1:6066"}) == 200


def test_a_token_is_asked_of_everybody_and_has_a_scope() -> None:
    access = Access(WRITE, READ, 10.0)
    assert status(access) == 401
    assert status(access, headers={"Authorization": WRITE}) == 401
    assert status(access, headers={"Authorization": f"Basic {WRITE}"}) == 401
    assert status(access, headers=bearer("x" * 16)) == 401
    assert status(access, headers=bearer("\udcff" * 16)) == 401
    assert status(access, "10.0.0.1", "any", bearer(READ)) == 200
    assert status(access, "10.0.0.1", "any", bearer(READ), "write") == 403
    assert status(access, "10.0.0.1", "any", bearer(WRITE), "write") == 200


def test_a_token_to_read_alone_lets_nobody_write() -> None:
    access = Access(None, READ, 10.0)
    assert access.has_token
    assert status(access, headers=bearer(READ)) == 200
    assert status(access, headers=bearer(READ), scope="write") == 403
    assert status(access, scope="write") == 401


def test_a_client_that_asks_too_often_waits_and_others_do_not() -> None:
    now = [0.0]
    access = Access(None, None, 5.0, lambda: now[0])
    for _ in range(10):
        access.count("a")
    with pytest.raises(ProblemError, match="more than 5 requests a second") as refused:
        access.count("a")
    assert (refused.value.status, refused.value.retry_seconds) == (429, 1)
    access.count("b")
    now[0] += 0.2
    access.count("a")
    with pytest.raises(ProblemError):
        access.count("a")


def test_clients_are_forgotten_and_take_no_more_memory() -> None:
    access = Access(None, None, 5.0)
    for number in range(MOST_CLIENTS + 100):
        access.count(f"10.{number}")
    assert len(access._budgets) == MOST_CLIENTS
