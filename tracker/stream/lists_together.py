"""ListsTogether: makes the lists of several partitions' small chunks at once.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import asyncio
from collections.abc import Collection, Sequence

import numpy as np

from tracker.kafka.outbox import Record
from tracker.recommend.options import LearnedModels
from tracker.stream.list_maker import ListJob, Lists, count_items, make_lists
from tracker.stream.serving import Context
from tracker.users.config import InterestConfig
from tracker.users.rows import UserRows

MOST_TOGETHER = 64
"""Most lists that are made at once: the event loop does nothing else meanwhile."""


HOLD_SECONDS = 0.005
"""Maximum time that lists wait for the chunks of other partitions."""


_Waiting = tuple[str, ListJob, "asyncio.Future[list[Record]]"]


class ListsTogether:
    """Makes the lists of all partitions of a worker whose small chunks come at the same time.

    A list costs little beside a call for lists. The users' rows are copied into one arena, which is
    only read; stamps and counters of a partition stay its own. A partition waits for its lists,
    so its rows do not change meanwhile.

    Args:
        context: what the partitions of a worker share.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: list[_Waiting] = []
        self._expected: set[str] = set()  # names of partitions whose small chunks are on their way
        self._deadline: asyncio.Handle | None = None
        self._rows: UserRows | None = None

    def expect(self, names: Collection[str]) -> None:
        """Expect small chunks of these partitions next; lists wait for theirs."""
        if len(names) > 1:
            self._expected.update(names)

    def pass_by(self, name: str) -> None:
        """Expect a partition no more: its chunk has no lists that can be made with others."""
        if name in self._expected:
            self._expected.discard(name)
            self._make_if_complete()

    async def make(self, name: str, job: ListJob) -> list[Record]:
        """Make the lists of a partition's job, with those of others that are expected."""
        answer: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        self._waiting.append((name, job, answer))
        self._expected.discard(name)
        self._make_if_complete()
        return await answer

    def make_all(self, jobs: Sequence[ListJob]) -> list[list[Record]]:
        """Return the records of each job; all have one artifact in use, and each user once.

        1. Copy the users' rows into one arena.
        2. Make and encode all lists.
        3. Stamp the rows of each partition, and count.
        """
        if len(jobs) == 1:
            return [jobs[0].make()]
        serving, context = jobs[0].serving, self._context
        # 1. Copy the rows.
        ends = np.cumsum([len(job.lists.users) for job in jobs]).tolist()
        parts = [
            slice(end - len(job.lists.users), end) for job, end in zip(jobs, ends, strict=True)
        ]
        rows = self._arena(serving.config, ends[-1])
        first = jobs[0].rows
        rows.follow(serving.config, first.states.hidden.shape[1], first.newest)
        for job, part in zip(jobs, parts, strict=True):
            rows.put_rows(part.start, job.rows, job.lists.slots)
        # 2. Make and encode the lists.
        answers = make_lists(
            context, rows, _joined([job.lists for job in jobs]), serving, LearnedModels()
        )
        # 3. Stamp and count.
        count_items(context, answers.batch, serving)
        return [
            job.maker.finish(job.lists, serving, job.now, answers.part(part))
            for job, part in zip(jobs, parts, strict=True)
        ]

    def _make_if_complete(self) -> None:
        """Make the lists if no partition is expected but those that wait already."""
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if self._expected.issubset(name for name, _, _ in self._waiting):
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = loop.call_soon(self._make_waiting)
        elif self._deadline is None:
            self._deadline = loop.call_later(HOLD_SECONDS, self._make_late)

    def _make_late(self) -> None:
        """Make the lists that have waited for long enough."""
        self._expected.clear()
        self._make_waiting()

    def _make_waiting(self) -> None:
        self._deadline = None
        while self._waiting:
            self._make_some(self._take())

    def _make_some(self, some: list[_Waiting]) -> None:
        try:
            out = self.make_all([job for _, job, _ in some])
        except Exception as error:  # a bug: each partition that waits ends with it
            for _, _, answer in some:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, _, answer), records in zip(some, out, strict=True):
            if not answer.done():
                answer.set_result(records)

    def _take(self) -> list[_Waiting]:
        """Take the jobs that are made at once: of one artifact, and not too many lists."""
        serving, lists = self._waiting[0][1].serving, 0
        some: list[_Waiting] = []
        rest: list[_Waiting] = []
        for entry in self._waiting:
            more = lists + len(entry[1].lists.users)
            if not some or (entry[1].serving is serving and more <= MOST_TOGETHER):
                some.append(entry)
                lists = more
            else:
                rest.append(entry)
        self._waiting = rest
        return some

    def _arena(self, config: InterestConfig, rows: int) -> UserRows:
        """Return the arena, with room for so many rows."""
        if self._rows is None:
            self._rows = UserRows(config)
        if self._rows.states.capacity < rows:
            self._rows.grow(max(rows, MOST_TOGETHER))
        return self._rows


def _joined(parts: Sequence[Lists]) -> Lists:
    """Return lists of several partitions as one; slots number them all."""
    return Lists(
        [user for part in parts for user in part.users],
        np.arange(sum(len(part.users) for part in parts)),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.scenes for part in parts]),
        [name for part in parts for name in part.scene_names],
        [origin for part in parts for origin in part.origins],
        np.concatenate([part.appended for part in parts]),
        [version for part in parts for version in part.versions],
    )
