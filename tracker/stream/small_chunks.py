"""SmallChunks: applies the small chunks that one fetch brought, and makes their lists in one call.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from tracker.kafka.outbox import Record
from tracker.recommend.options import LearnedModels
from tracker.stream.list_maker import ListJob, Lists, count_items, make_lists
from tracker.stream.partition import Chunk, Partition
from tracker.stream.serving import Context
from tracker.users.config import InterestConfig
from tracker.users.rows import UserRows

MOST_RECORDS = 128
"""Most records that are applied at once: the event loop does nothing else meanwhile."""


class SmallChunks:
    """Applies small chunks of all partitions of a worker at once, on the event loop.

    A chunk of few events costs little beside the tasks, queues and calls that lead to it. So those
    that one fetch brought are applied one after the other without a wait between, and their lists
    are made in one call. The users' rows are copied into one arena for it, which is only read.
    Rows, order, stamps, counters and failures of a partition stay its own.

    Args:
        context: what the partitions of a worker share.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._rows: UserRows | None = None

    def apply(self, chunks: Iterable[tuple[Partition, Chunk]]) -> list[Chunk]:
        """Apply chunks where nothing comes before them, and send their lists.

        Args:
            chunks: of different partitions.

        Returns:
            the chunks that were applied. The others have changed nothing.
        """
        applied: list[tuple[Partition, Chunk]] = []
        records = 0
        with self._context.trace("chunks"):
            for partition, chunk in chunks:
                if (
                    records + len(chunk.records) <= MOST_RECORDS
                    and partition.is_free_for(chunk)
                    and partition.apply_now(chunk)
                ):
                    applied.append((partition, chunk))
                    records += len(chunk.records)
            self._make_lists([partition for partition, _ in applied])
        return [chunk for _, chunk in applied]

    def make_all(self, jobs: Sequence[ListJob]) -> list[list[Record]]:
        """Return the records of each job; all have one artifact in use, and each user once.

        1. Copy the users' rows into one arena.
        2. Make and encode all lists.
        3. Stamp the rows of each partition, and count.
        """
        if len(jobs) < 2:
            return [job.make() for job in jobs]
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

    def _make_lists(self, partitions: Sequence[Partition]) -> None:
        """Make and send the lists that the chunks of partitions have left."""
        pairs = [(one, job) for one in partitions if (job := one.side.take_lists()) is not None]
        try:
            out = self.make_all([job for _, job in pairs])
        except Exception as error:  # a bug: each of these partitions ends with it
            for partition, _ in pairs:
                partition.fail(error)
            return
        for (partition, _), lists in zip(pairs, out, strict=True):
            partition.send(lists)

    def _arena(self, config: InterestConfig, rows: int) -> UserRows:
        """Return the arena, with room for so many rows."""
        if self._rows is None:
            self._rows = UserRows(config)
        if self._rows.states.capacity < rows:
            self._rows.grow(max(rows, MOST_RECORDS))
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
