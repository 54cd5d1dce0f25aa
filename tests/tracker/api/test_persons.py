"""Export and erasure over HTTP: what is answered, and what is a problem."""

from pathlib import Path
from typing import Any

import pytest

from tests.api_world import ApiWorld, user_in, with_api
from tracker.api import persons
from tracker.kafka.cluster import BrokerError, TopicError
from tracker.lookup.forget import ForgetReport, Remainder

ADA = user_in(0)
TOKENS = {"web_token": "w" * 16, "web_read_token": "r" * 16}


def answering(monkeypatch: pytest.MonkeyPatch, name: str, answer: Any) -> list[str]:
    asked: list[str] = []

    async def work(settings: Any, *given: Any) -> Any:
        asked.extend(one for one in given if isinstance(one, str))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(persons, name, work)
    return asked


def test_a_user_is_forgotten_and_what_remains_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = ForgetReport("r1", 4, [2], 3, 1, True, [Remainder("t-events", "events", 60.0)])
    asked = answering(monkeypatch, "forget_user", report)

    async def work(world: ApiWorld) -> None:
        status, answer = await world.ask(f"/users/{ADA}", "DELETE")
        assert status == 202
        assert answer == {
            "request": "r1",
            "complete": False,
            "waiting": [2],
            "was_known": True,
            "events_taken_out": 3,
            "events_left": 1,
            "remains": [{"place": "t-events", "what": "events", "seconds": 60.0}],
        }

    with_api(tmp_path, work)
    assert asked == [ADA]


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (TopicError("topic t-forget does not exist: run 'tracker topics'"), 409, "tracker topics"),
        (BrokerError("away"), 503, "away"),
    ],
)
def test_what_keeps_a_user_from_being_forgotten_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, told: str
) -> None:
    answering(monkeypatch, "forget_user", error)

    async def work(world: ApiWorld) -> None:
        found, problem = await world.ask(f"/users/{ADA}", "DELETE")
        assert found == status
        assert told in problem["detail"]

    with_api(tmp_path, work)


def test_all_that_is_kept_is_exported_and_nothing_is_404(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = {"user_id": ADA, "states": [{"partition": 0}], "records": {}, "attributes": [1]}
    answering(monkeypatch, "export_user", person)

    async def known(world: ApiWorld) -> None:
        assert await world.ask(f"/users/{ADA}/export") == (200, person)

    with_api(tmp_path / "known", known)
    answering(monkeypatch, "export_user", None)

    async def unknown(world: ApiWorld) -> None:
        status, _ = await world.ask(f"/users/{ADA}/export")
        assert status == 404

    with_api(tmp_path / "unknown", unknown)


def test_both_need_the_token_that_may_write(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        headers = {"Authorization": f"Bearer {TOKENS['web_read_token']}"}
        for path, method in ((f"/users/{ADA}", "DELETE"), (f"/users/{ADA}/export", "GET")):
            status, _ = await world.ask(path, method, headers=headers)
            assert status == 403

    with_api(tmp_path, work, **TOKENS)
