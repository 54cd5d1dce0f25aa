"""Commands that speak to brokers ask first whether they have the rights of their role."""

import asyncio
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tracker.cli import doctor
from tracker.cli.main import cli
from tracker.kafka.rights import ROLES, RightsError

WITHOUT_BROKERS = {
    "broker", "compile", "pseudonym", "acls", "demo", "top", "show", "score", "why",
}  # fmt: skip
"""Commands that need no right: they speak to a worker, to a broker of their own, or to nobody."""

NOTHING_TO_HALVE = {"send": "producer", "watch": "subscriber"}
"""Commands that are told by the brokers, with one request, if they have no right."""

ASK_FIRST = {
    ("topics",): "topics",
    ("topics", "--check"): "topics",
    ("forget", "ada"): "forget",
    ("export", "users.parquet"): "export",
    ("export-user", "ada"): "export-user",
    ("export-user", "ada", "--states-only"): "export",
    ("reset-state", "--everything", "--yes"): "reset-state",
    ("reset-learning", "--yes"): "reset-learning",
    ("mend-times", "--yes"): "mend-times",
    ("merge-states", "--yes"): "merge-states",
    ("move-states", "--yes"): "move-states",
    ("replay", "--of", "live"): "replay of live",
    ("replay", "--of", "live", "--change-over"): "replay of live",
    ("replay", "--of", "live", "--give-back"): "replay of live",
}


def test_every_command_has_a_role_or_needs_none() -> None:
    asking = {words[0] for words in ASK_FIRST}
    by_themselves = {"worker", "doctor"}
    known = WITHOUT_BROKERS | set(NOTHING_TO_HALVE) | asking | by_themselves
    assert known == set(cli.commands)
    roles = {role.split()[0] for role in ASK_FIRST.values()} | set(NOTHING_TO_HALVE.values())
    assert roles | by_themselves == set(ROLES)


@pytest.mark.parametrize(("words", "role"), ASK_FIRST.items(), ids=map(" ".join, ASK_FIRST))
def test_command_that_lacks_a_right_says_so_in_one_line_and_has_done_nothing(
    words: tuple[str, ...], role: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def refuse(settings: Any, role: str, of: str = "") -> None:
        raise RightsError(f"lacks {role}" + f" of {of}" * bool(of))

    monkeypatch.setattr("tracker.cli.shared.check_rights", refuse)
    for module in ("look", "operate"):
        monkeypatch.setattr(f"tracker.cli.{module}.load_artifact", lambda settings: None)
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.chdir(tmp_path)
    env = {"TRACKER_NAME": "new", "TRACKER_DATA_DIR": str(data)}
    result = CliRunner().invoke(cli, words, env=env)
    assert (result.exit_code, result.output) == (1, f"Error: lacks {role}\n")
    assert list(tmp_path.iterdir()) == [data]


def test_rights_of_a_replay_need_the_name_of_the_live_tracker() -> None:
    refused = CliRunner().invoke(cli, ["acls", "replay", "User:a"])
    assert refused.exit_code == 2
    assert "replay needs --of NAME" in refused.output
    printed = CliRunner().invoke(cli, ["acls", "--of", "live", "replay", "User:a"])
    assert printed.exit_code == 0
    assert "--operation Write --topic live-items-changelog" in printed.output
    wrong = CliRunner().invoke(cli, ["acls", "--of", "live", "worker", "User:a"])
    assert wrong.exit_code == 2
    assert "--of is for the role replay alone, not for worker" in wrong.output


@pytest.mark.parametrize(("lacks", "state"), [(None, "ok"), ("doctor", "note"), ("worker", "fail")])
def test_doctor_fails_by_a_right_of_a_worker_and_notes_one_of_its_own(
    lacks: str | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(settings: Any, role: str) -> None:
        if role == lacks:
            raise RightsError("a right is missing")

    monkeypatch.setattr(doctor, "check_rights", check)
    found = asyncio.run(doctor.check_doctor_rights(Any))  # type: ignore[arg-type]
    assert found.state == state
    assert (lacks is None) == ("a right is missing" not in found.text)


def test_roles_are_those_of_the_command() -> None:
    (role,) = (one for one in cli.commands["acls"].params if one.name == "role")
    assert isinstance(role.type, click.Choice)
    assert set(role.type.choices) == set(ROLES)
