"""MemberFile: which member of the group a worker was last, to end a membership that a kill left."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

log = logging.getLogger(__name__)

LEAVE_SECONDS = 5.0
"""Maximum time in which the former member is taken out of the group."""


class MemberFile:
    """The id of the member that a worker is, in a file of its data directory.

    A worker that was killed stays a member until its session is over. If it is started again sooner
    and joins, the whole group waits for the member that it was, and no worker makes lists. This
    worker alone has the lock of the directory, so that member is dead, and is told to leave.

    Args:
        path: of the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._former = self._current = ""
        with contextlib.suppress(OSError):
            self._former = path.read_text(encoding="utf-8", errors="replace").strip()

    def note(self, member: str) -> None:
        """Write down the member that the worker is now; a power failure may lose it."""
        if member != self._current:
            self._current = member
            try:
                self._path.write_text(member, encoding="utf-8")
            except OSError as error:
                log.warning("%s cannot be written: %s", self._path, error.strerror)

    async def dismiss(self, coordinator: Any) -> None:
        """Take the member that the process before was out of the group, if it has not left.

        Args:
            coordinator: the group's, of a consumer of aiokafka that has not joined yet.
        """
        former, self._former = self._former, ""
        if not former:
            return
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await coordinator.ensure_coordinator_known()
                request = LeaveGroupRequest(coordinator.group_id, former)
                answer = await coordinator._send_req(request)
        except (KafkaError, TimeoutError):
            return  # its session ends by itself
        if answer.error_code == 0:
            log.info("took the process before, which had not left, out of the group")
