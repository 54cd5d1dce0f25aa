"""MemberFile: a worker that was killed is taken out of the group when it starts again."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError

from tracker.worker import member_file
from tracker.worker.member_file import MemberFile


class Coordinator:
    """A group's coordinator that notes who is told to leave."""

    group_id = "shop"

    def __init__(self, code: int = 0, error: Exception | None = None) -> None:
        self.left: list[tuple[str, str]] = []
        self._code, self._error = code, error

    async def ensure_coordinator_known(self) -> None:
        if self._error is not None:
            raise self._error

    async def _send_req(self, request: Any) -> Any:
        self.left.append((request._group, request._member_id))
        return SimpleNamespace(error_code=self._code)


def test_process_before_is_told_to_leave_once_and_this_one_never(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "member"
    MemberFile(path).note("member-1")
    file, coordinator = MemberFile(path), Coordinator()
    file.note("member-2")
    asyncio.run(file.dismiss(coordinator))
    asyncio.run(file.dismiss(coordinator))
    assert coordinator.left == [("shop", "member-1")]
    assert "took the process before, which had not left, out of the group" in caplog.messages
    assert path.read_text() == "member-2"


def test_one_that_has_left_in_order_is_not_spoken_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    MemberFile(tmp_path / "member").note("member-1")
    unknown_member = 25
    asyncio.run(MemberFile(tmp_path / "member").dismiss(Coordinator(unknown_member)))
    assert caplog.messages == []


def test_first_start_tells_nobody_to_leave(tmp_path: Path) -> None:
    coordinator = Coordinator()
    asyncio.run(MemberFile(tmp_path / "member").dismiss(coordinator))
    assert coordinator.left == []


def test_group_without_a_coordinator_keeps_no_worker_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_file, "LEAVE_SECONDS", 0.05)

    class Silent(Coordinator):
        async def ensure_coordinator_known(self) -> None:
            await asyncio.Event().wait()

    MemberFile(tmp_path / "member").note("member-1")
    for coordinator in (Coordinator(error=GroupCoordinatorNotAvailableError()), Silent()):
        asyncio.run(MemberFile(tmp_path / "member").dismiss(coordinator))
        assert coordinator.left == []


def test_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    MemberFile(tmp_path / "absent" / "member").note("member-1")
    assert "cannot be written: No such file or directory" in caplog.text
