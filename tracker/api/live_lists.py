"""LiveLists: makes the usual lists that requests wait for, all at once, on the event loop."""

import asyncio
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from tracker.api.lists import ListRequest, list_answers
from tracker.api.messages import ListAnswer
from tracker.api.problems import ProblemError
from tracker.api.reads import MOST_WAITING, Copy
from tracker.events.wire import hash_id, scene_code
from tracker.recommend.options import LearnedModels
from tracker.settings import Settings
from tracker.users.rows import RequestBatch, UserRows

MOST_AT_ONCE = 32
"""Most lists that are made in one go: the event loop does nothing else meanwhile."""

MOST_ITEMS = 50
"""Items of a list that is made so, if those of the stream are not longer themselves."""


class _Waiting(NamedTuple):
    """A list that is wanted, the copy that it is made of, and the future of the answer."""

    copy: Copy
    request: ListRequest
    answer: "asyncio.Future[ListAnswer]"

    @property
    def key(self) -> Hashable:
        """Equal for lists that may be made in one call."""
        learned = self.copy.moment.learned
        own = None if learned == LearnedModels() else id(learned)
        return id(self.copy.moment.serving), self.request.k, own


class LiveLists:
    """Makes lists as the stream makes them, of copies of states, by the recommender in use.

    It takes a millisecond, and much of that is Python. A thread would have to wait for the
    interpreter many times meanwhile, and the stream for the thread. So it is done on the event
    loop, between two chunks: at once for the first request of a turn of the loop, and then for all
    requests that wait, by one search and one scoring for all of them.

    Args:
        settings: how lists of the stream are made.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: list[_Waiting] = []
        self._rows: UserRows | None = None
        self._is_idle = True  # no list was made in this turn of the event loop

    def takes(self, request: ListRequest) -> bool:
        """Return whether a list differs from those of the stream by no more than its scene."""
        return (
            request.k <= max(self._settings.k, MOST_ITEMS)
            and request.explain == self._settings.explain
            and request.diversity is None
            and not request.exclude
        )

    async def make(self, copy: Copy, request: ListRequest) -> ListAnswer:
        """Make a list: at once if none was made in this turn, else with all others that wait.

        Raises:
            ProblemError: too many wait.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise ProblemError(429, f"{MOST_WAITING} requests wait; ask again later")
        loop = asyncio.get_running_loop()
        if self._is_idle:
            self._is_idle = False
            loop.call_soon(self._make_some)
            return self.make_all([copy], [request])[0]
        answer: asyncio.Future[ListAnswer] = loop.create_future()
        self._waiting.append(_Waiting(copy, request, answer))
        return await answer

    def _make_some(self) -> None:
        """Make up to MOST_AT_ONCE lists; others wait for their turn."""
        some, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
        self._is_idle = not some
        if some:
            asyncio.get_running_loop().call_soon(self._make_some)
        groups: dict[Hashable, list[_Waiting]] = {}
        for one in some:
            if not one.answer.done():  # otherwise whoever asked has gone
                groups.setdefault(one.key, []).append(one)
        for group in groups.values():
            try:
                answers = self.make_all([one.copy for one in group], [one.request for one in group])
            except Exception as error:  # a bug: told to whoever asked, as of any other request
                for one in group:
                    one.answer.set_exception(error)
            else:
                for one, answer in zip(group, answers, strict=True):
                    one.answer.set_result(answer)

    def make_all(self, copies: list[Copy], list_requests: list[ListRequest]) -> list[ListAnswer]:
        """Return lists of one length, of copies with one artifact and equal learned models."""
        moment = copies[0].moment
        recommender = moment.serving.recommender
        slots = np.array([copy.user.slot for copy in copies], np.int64)
        rows = copies[0].user.rows
        if len(copies) > 1:
            rows = self._rows_of(copies)
            slots = np.where(slots >= 0, np.arange(len(copies)), -1)
        requests = RequestBatch(
            rows,
            slots,
            np.array([one.now for one in list_requests]),
            np.array([scene_code(one.scene) for one in list_requests], np.uint32),
            np.array([hash_id(copy.name) for copy in copies], np.uint64),
        )
        batch, histories = recommender.recommend_with_histories(
            requests, list_requests[0].k, moment.learned
        )
        return list_answers(
            copies,
            list_requests,
            moment.serving.artifact,
            histories,
            batch,
            requests,
            moment.serving.encoder.words,
        )

    def _rows_of(self, copies: list[Copy]) -> UserRows:
        """Return the rows of users one after the other, until the next call."""
        first = copies[0].user.rows
        config = copies[0].moment.serving.config
        if self._rows is None:
            self._rows = UserRows(config)
            self._rows.grow(MOST_AT_ONCE)
        self._rows.follow(config, first.states.hidden.shape[1], first.newest)
        for place, copy in enumerate(copies):
            self._rows.put_rows(place, copy.user.rows, np.zeros(1, np.int64))
        return self._rows
