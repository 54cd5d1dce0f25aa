"""Problem: an error as RFC 9457 describes it, and the exception that becomes one."""

from http import HTTPStatus

import msgspec

PROBLEM_TYPE = "application/problem+json"

RETRY_SECONDS = 1
"""Seconds after which whoever found the worker busy, or a partition moving, may ask again."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was not answered.

    `title` is the same for all problems of a `status`; `detail` has what was found, what is
    expected, and what to do. `partition` is the partition of the user, where it matters.
    """

    status: int
    title: str
    detail: str
    type: str = "about:blank"
    partition: int | None = None


class ProblemError(Exception):
    """A request cannot be answered; the client is told why.

    Args:
        status: HTTP status, 400 or above.
        detail: what was found, what is expected, and what to do.
        partition: of the user or item, where it matters.
        retry_seconds: when to ask again; a problem of status 429 or 503 always says it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        partition: int | None = None,
        retry_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.partition = partition
        if retry_seconds is None and status in (429, 503):
            retry_seconds = RETRY_SECONDS
        self.retry_seconds = retry_seconds

    @property
    def problem(self) -> Problem:
        """The problem as it is sent."""
        return Problem(
            self.status, HTTPStatus(self.status).phrase, self.detail, partition=self.partition
        )
